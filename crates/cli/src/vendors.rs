//! `byzerllm vendors`: whose models can be deployed, and with which parameters. Generated from the table of vendors.

use byzerllm_providers::{Kind, Parameter, VENDORS, Vendor, all_parameters, find};
use serde_json::{Value, json};

use crate::arguments::VendorsArguments;
use crate::output::{Outcome, Output, table};

/// Shows all vendors, or the parameters of one.
pub(crate) fn vendors(arguments: &VendorsArguments, output: Output) -> Outcome {
    match &arguments.vendor {
        Some(name) => one(find(name)?, arguments.json, output),
        None => all(arguments.json, output),
    }
}

fn all(json: bool, output: Output) -> Outcome {
    if json {
        let vendors: Vec<Value> = VENDORS.iter().map(|vendor| head(vendor)).collect();
        return output.json(&vendors);
    }
    let mut rows = vec![["TYPE", "ALSO", "VENDOR"].map(str::to_owned).to_vec()];
    rows.extend(VENDORS.iter().map(|vendor| {
        let aliases = vendor.aliases.iter().map(|alias| typed(alias)).collect::<Vec<_>>();
        let also = if aliases.is_empty() { "-".to_owned() } else { aliases.join(", ") };
        vec![typed(vendor.name), also, vendor.title.to_owned()]
    }));
    for line in table(&rows) {
        output.line(line)?;
    }
    output.note("`byzerllm vendors TYPE` shows the parameters of one.");
    Ok(())
}

fn one(vendor: &'static Vendor, json: bool, output: Output) -> Outcome {
    if json {
        let mut shown = head(vendor);
        shown["parameters"] = all_parameters(vendor).map(parameter).collect();
        return output.json(&shown);
    }
    output.line(format_args!("{}: {}", typed(vendor.name), vendor.title))?;
    output.line(format_args!("Documentation: {}", vendor.documentation))?;
    output.line("")?;
    let mut rows = vec![["PARAMETER", "VALUE", "DEFAULT", "MEANING"].map(str::to_owned).to_vec()];
    rows.extend(all_parameters(vendor).map(|parameter| {
        let default = match (parameter.default, parameter.required) {
            (Some(default), _) => default,
            (None, true) => "required",
            (None, false) => "-",
        };
        let also = match parameter.aliases {
            [] => String::new(),
            aliases => {
                format!(" (also {})", aliases.iter().map(|name| keyed(name)).collect::<Vec<_>>().join(", "))
            }
        };
        vec![
            keyed(parameter.name),
            value(parameter.kind),
            default.to_owned(),
            format!("{}{also}", parameter.help),
        ]
    }));
    for line in table(&rows) {
        output.line(line)?;
    }
    Ok(())
}

fn head(vendor: &Vendor) -> Value {
    json!({
        "type": typed(vendor.name),
        "aliases": vendor.aliases.iter().map(|alias| typed(alias)).collect::<Vec<_>>(),
        "title": vendor.title,
        "documentation": vendor.documentation,
    })
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": keyed(parameter.name),
        "aliases": parameter.aliases.iter().map(|alias| keyed(alias)).collect::<Vec<_>>(),
        "value": value(parameter.kind),
        "default": parameter.default,
        "required": parameter.required,
        "meaning": parameter.help,
    })
}

fn typed(name: &str) -> String {
    format!("saas/{name}")
}

fn keyed(name: &str) -> String {
    format!("saas.{name}")
}

/// What a parameter may hold, in a word or two.
fn value(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Secret => "secret".to_owned(),
        Kind::Url => "URL".to_owned(),
        Kind::Seconds => "seconds".to_owned(),
        Kind::Count => "number".to_owned(),
        Kind::Flag => "true|false".to_owned(),
        Kind::Address => "IP address".to_owned(),
        Kind::Choice(words) => words.join("|"),
    }
}
