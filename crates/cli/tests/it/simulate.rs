//! `byzerllm simulate`: what it prints, and that it answers meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::harness::World;

#[test]
fn a_vendor_runs_until_it_is_told_to_end_and_prints_its_bill() {
    let world = World::new();
    let mut process = world.command(&["simulate", "zhipu", "--api-key", "id.key"]).spawn().unwrap();
    let mut out = BufReader::new(process.stdout.take().unwrap());
    let mut line = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line
    };
    let (place, deploy) = (line(), line());
    let url = place.strip_prefix("zhipu is simulated on ").unwrap().split(',').next().unwrap().to_owned();
    let expected = format!(
        "byzerllm deploy --name m --type saas/zhipu --set saas.base_url={url} --set saas.api_key=id.key \
         --set saas.model=glm-4\n"
    );
    assert_eq!(deploy, expected);
    let host = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let body = r#"{"model":"glm-4","messages":[{"role":"user","content":"hi"}]}"#;
    let head =
        "POST /api/paas/v4/chat/completions HTTP/1.1\r\nauthorization: Bearer id.key\r\nconnection: close";
    let request = format!("{head}\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(&host).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let ended =
        std::process::Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap();
    assert!(ended.success() && process.wait().unwrap().success());
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let rows: Vec<&str> = rest.lines().collect();
    assert!(
        rows[0].starts_with("REQUEST") && rows[1].contains("glm-4") && rows[1].ends_with("answered"),
        "{rest}"
    );
    assert!(rows[2].starts_with("total"), "{rest}");
}

#[test]
fn what_cannot_be_simulated_is_said() {
    let world = World::new();
    let unknown = world.run(&["simulate", "zipu"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("did you mean 'zhipu'?"), "{}", unknown.err);
    let fault = world.run(&["simulate", "zhipu", "--fault", "tired"]);
    assert_eq!(fault.code, 2);
    assert!(fault.err.contains("There are: slow-first-byte"), "{}", fault.err);
}
