//! Every vendor has a page that names each of its parameters, under each of its names.

use std::path::PathBuf;

use byzerllm_providers::VENDORS;

#[test]
fn a_page_names_every_parameter_of_its_vendor() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/vendors");
    let mut missing = Vec::new();
    for vendor in VENDORS {
        let (name, parameters) = (vendor.name, vendor.parameters);
        let page = if name == "reasoning_openai" { "openai" } else { name };
        let text = std::fs::read_to_string(folder.join(format!("{page}.md")))
            .unwrap_or_else(|_| panic!("{name} has no page"));
        assert!(text.contains(&format!("saas/{name}")), "the page of {name} does not name it");
        for parameter in parameters {
            for word in std::iter::once(&parameter.name).chain(parameter.aliases) {
                if !text.contains(&format!("`saas.{word}`")) {
                    missing.push(format!("{name}: saas.{word}"));
                }
            }
        }
        assert!(text.contains("SQL form: reserved"), "{name}");
    }
    assert!(missing.is_empty(), "the pages do not name {missing:?}");
}
