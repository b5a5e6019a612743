//! Traces for an OpenTelemetry collector, when the environment names one: `OTEL_EXPORTER_OTLP_ENDPOINT` and the other
//! variables of its specification. Sending them takes a build with the feature `otel`.

#[cfg(feature = "otel")]
mod export;

#[cfg(feature = "otel")]
pub(crate) use export::{Traces, adopt};

use crate::output::{Failure, Outcome};

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Whether the environment asks for traces; a wish that cannot be fulfilled is refused by its name.
fn wanted() -> Outcome<bool> {
    let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let endpoint = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"].map(variable);
    if disabled || endpoint.iter().all(Option::is_none) {
        return Ok(false);
    }
    match variable("OTEL_TRACES_EXPORTER").as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(false),
        Some(other) => {
            let message = format!("OTEL_TRACES_EXPORTER is '{other}', which this program cannot do");
            return Err(Failure::misuse(message, "Use otlp, or none to send no traces."));
        }
    }
    for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
        let Some(protocol) = variable(name) else { continue };
        if protocol != "http/protobuf" {
            let message = format!("{name} is '{protocol}', which this program cannot speak");
            let fix = "Use http/protobuf; collectors take it on port 4318.";
            return Err(Failure::misuse(message, fix));
        }
        break;
    }
    Ok(true)
}

/// What a build without the feature has in place of an exporter.
#[cfg(not(feature = "otel"))]
pub(crate) struct Traces;

#[cfg(not(feature = "otel"))]
impl Traces {
    /// Says so when the environment asks for traces.
    pub(crate) fn from_environment(output: crate::output::Output) -> Outcome<Option<Self>> {
        if wanted()? {
            output.note(
                "warning: OTEL_EXPORTER_OTLP_ENDPOINT is set, but this build sends no traces; build it with \
                 `--features otel`",
            );
        }
        Ok(None)
    }

    pub(crate) fn layer(&self) -> tracing_subscriber::layer::Identity {
        tracing_subscriber::layer::Identity::new()
    }
}
