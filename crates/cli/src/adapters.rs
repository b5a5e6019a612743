//! `byzerllm adapters`: LoRA adapters of a server's deployments.

use byzerllm_runtime::AdapterInfo;
use serde_json::json;

use crate::arguments::{
    AdaptersAction, AdaptersArguments, AddAdapterArguments, ListAdaptersArguments, RemoveAdapterArguments,
};
use crate::connection::Connection;
use crate::deploy::read;
use crate::output::{Outcome, Output, bytes, table};

/// Runs one of the actions.
pub(crate) async fn adapters(arguments: AdaptersArguments, output: Output) -> Outcome {
    match arguments.action {
        AdaptersAction::Add(arguments) => add(arguments, output).await,
        AdaptersAction::Remove(arguments) => remove(arguments, output).await,
        AdaptersAction::List(arguments) => list(arguments, output).await,
    }
}

async fn add(arguments: AddAdapterArguments, output: Output) -> Outcome {
    let AddAdapterArguments { deployment, name, path, server, json } = arguments;
    let connection = Connection::open(server.url.as_deref())?;
    let path = std::path::absolute(path)?;
    let loaded = match connection.client.load_adapter(&deployment, &name, &path).await {
        Ok(loaded) => loaded,
        Err(error) => return Err(connection.explain(error).await),
    };
    if json {
        return output.json(&loaded);
    }
    output.line(format_args!("{deployment}:{name} is ready at {}", connection.url))
}

async fn remove(arguments: RemoveAdapterArguments, output: Output) -> Outcome {
    let RemoveAdapterArguments { deployment, name, server } = arguments;
    let connection = Connection::open(server.url.as_deref())?;
    match connection.client.unload_adapter(&deployment, &name).await {
        Ok(()) => output.line(format_args!("{deployment}:{name} is gone from {}", connection.url)),
        Err(error) => Err(connection.explain(error).await),
    }
}

async fn list(arguments: ListAdaptersArguments, output: Output) -> Outcome {
    let ListAdaptersArguments { deployment, server, json } = arguments;
    let connection = Connection::open(server.url.as_deref())?;
    let listed = match connection.client.adapters(&deployment).await {
        Ok(listed) => listed,
        Err(error) => return Err(connection.explain(error).await),
    };
    if json {
        return output.json(&json!({ "url": connection.url, "adapters": listed }));
    }
    let adapters: Vec<AdapterInfo> = listed.iter().map(read).collect::<Outcome<_>>()?;
    if adapters.is_empty() {
        output.note(format_args!(
            "{deployment} has no adapters. `byzerllm adapters add {deployment} NAME PATH` loads one."
        ));
        return Ok(());
    }
    let mut rows = vec![["MODEL", "RANK", "MATRICES", "BYTES", "ACTIVE", "PATH"].map(str::to_owned).to_vec()];
    rows.extend(adapters.iter().map(|adapter| {
        vec![
            format!("{deployment}:{}", adapter.name),
            adapter.rank.to_string(),
            adapter.modules.to_string(),
            bytes(adapter.bytes),
            adapter.active.to_string(),
            adapter.path.display().to_string(),
        ]
    }));
    table(&rows).iter().try_for_each(|line| output.line(line))
}
