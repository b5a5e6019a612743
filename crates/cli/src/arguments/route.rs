//! What can be typed after `deploy` to put several deployments behind one name.

use byzerllm_runtime::RouteSpec;
use clap::Args;

/// The option that makes a deployment a route.
#[derive(Debug, Args)]
pub(crate) struct RouteArguments {
    /// Deployments that answer in its name, each with its share, in place of --model.
    #[arg(
        long,
        value_name = "NAME=WEIGHT,…",
        value_parser = targets,
        requires = "name",
        conflicts_with_all = ["model", "vendor"]
    )]
    pub(crate) route: Option<RouteSpec>,
}

fn targets(text: &str) -> Result<RouteSpec, String> {
    let targets = RouteSpec::parse_targets(text).map_err(|error| error.message().to_owned())?;
    Ok(RouteSpec { targets, ..RouteSpec::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_list_of_names_with_shares() {
        let read: Vec<_> =
            targets("a=3,b").unwrap().targets.into_iter().map(|t| (t.deployment, t.weight)).collect();
        assert_eq!(read, [("a".to_owned(), 3), ("b".to_owned(), 1)]);
        assert!(targets("a=x").unwrap_err().contains("NAME=WEIGHT"));
    }
}
