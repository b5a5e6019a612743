//! Whether a new route leads anywhere.

use byzerllm_core::{Error, Result, nearest};

use super::{MAX_DEPTH, RouteSpec};

/// What a name stands for.
pub(crate) enum Node {
    /// A model.
    Model,
    /// A route to these.
    Route(Vec<String>),
}

impl Node {
    pub(crate) fn route(spec: &RouteSpec) -> Self {
        Self::Route(spec.targets.iter().map(|target| target.deployment.clone()).collect())
    }
}

/// Checks a route against what is deployed: every target exists, none leads back to it, and no way through routes is
/// longer than [`MAX_DEPTH`].
///
/// # Errors
/// [`byzerllm_core::ErrorKind::InvalidRequest`] saying which target and why.
pub(crate) fn check(
    name: &str,
    spec: &RouteSpec,
    names: &[String],
    node: &dyn Fn(&str) -> Option<Node>,
) -> Result<()> {
    for target in &spec.targets {
        let target = target.deployment.as_str();
        if target != name && node(target).is_none() {
            let message =
                match nearest(target, names.iter().map(String::as_str).filter(|known| *known != name)) {
                    Some(near) => {
                        format!("there is no deployment '{target}' to lead to; did you mean '{near}'?")
                    }
                    None => format!("there is no deployment '{target}' to lead to; deploy it first"),
                };
            return Err(Error::invalid("route.targets", message));
        }
        walk(name, target, node, &mut vec![target.to_owned()])?;
    }
    Ok(())
}

/// Follows the routes from `at`; `way` is how it was reached.
fn walk(name: &str, at: &str, node: &dyn Fn(&str) -> Option<Node>, way: &mut Vec<String>) -> Result<()> {
    if at == name {
        return Err(Error::invalid(
            "route.targets",
            format!("'{name}' would lead back to itself: {name} → {}", way.join(" → ")),
        ));
    }
    let Some(Node::Route(targets)) = node(at) else { return Ok(()) };
    // The new route and those on the way.
    if way.len() >= usize::from(MAX_DEPTH) {
        return Err(Error::invalid(
            "route.targets",
            format!("'{name}' would lead through more than {MAX_DEPTH} routes: {name} → {}", way.join(" → ")),
        ));
    }
    for target in targets {
        way.push(target.clone());
        walk(name, &target, node, way)?;
        way.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, targets: &str, routes: &[(&str, &str)]) -> Result<()> {
        let spec = RouteSpec { targets: RouteSpec::parse_targets(targets)?, ..RouteSpec::default() };
        let mut names = vec!["model".to_owned(), "other".to_owned()];
        names.extend(routes.iter().map(|(name, _)| (*name).to_owned()));
        let node = |wanted: &str| {
            if let Some((_, targets)) = routes.iter().find(|(name, _)| *name == wanted) {
                return Some(Node::Route(targets.split(',').map(str::to_owned).collect()));
            }
            ["model", "other"].contains(&wanted).then_some(Node::Model)
        };
        check(name, &spec, &names, &node)
    }

    #[test]
    fn targets_exist() {
        checked("chat", "model,other", &[]).unwrap();
        let error = checked("chat", "model,othre", &[]).unwrap_err();
        assert_eq!(error.param(), Some("route.targets"));
        assert!(error.message().contains("did you mean 'other'?"), "{error}");
    }

    #[test]
    fn no_route_leads_back() {
        for (targets, routes) in [
            ("chat", &[][..]),
            ("model,a", &[("a", "model,chat")]),
            ("a", &[("a", "b"), ("b", "model,chat"), ("chat", "model")]),
        ] {
            let error = checked("chat", targets, routes).unwrap_err();
            assert!(error.message().contains("lead back to itself"), "{error}");
        }
        checked("chat", "a,b", &[("a", "model"), ("b", "model")]).unwrap();
    }

    #[test]
    fn a_way_has_an_end() {
        let routes = [("a", "b"), ("b", "c"), ("c", "model"), ("d", "a")];
        checked("chat", "a", &routes).unwrap();
        let error = checked("chat", "d", &routes).unwrap_err();
        assert!(error.message().contains("more than 4 routes: chat → d → a → b → c"), "{error}");
    }
}
