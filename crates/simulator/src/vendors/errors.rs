//! Status and body of a refusal, as each vendor documents them.

use serde_json::{Value, json};

use crate::refusal::Refusal;

/// <https://platform.openai.com/docs/guides/error-codes>
pub(crate) fn openai(refusal: &Refusal, _id: &str) -> (u16, Value) {
    let (kind, code) = match refusal {
        Refusal::NoCredential => ("invalid_request_error", None),
        Refusal::BadCredential | Refusal::ExpiredCredential => {
            ("invalid_request_error", Some("invalid_api_key"))
        }
        Refusal::NoSuchPath => ("invalid_request_error", Some("unknown_url")),
        Refusal::NoSuchModel(_) => ("invalid_request_error", Some("model_not_found")),
        Refusal::NoJson => ("invalid_request_error", None),
        Refusal::Missing(_) => ("invalid_request_error", Some("missing_required_parameter")),
        Refusal::Invalid(..) => ("invalid_request_error", Some("invalid_value")),
        Refusal::TooLong => ("invalid_request_error", Some("context_length_exceeded")),
        Refusal::Filtered => ("invalid_request_error", Some("content_policy_violation")),
        Refusal::RateLimited => ("requests", Some("rate_limit_exceeded")),
        Refusal::Overloaded => ("server_error", Some("server_overloaded")),
        Refusal::Broken => ("server_error", None),
    };
    let error =
        json!({ "message": refusal.sentence(), "type": kind, "param": refusal.field(), "code": code });
    (refusal.status(), json!({ "error": error }))
}

/// <https://learn.microsoft.com/azure/ai-services/openai/reference>
pub(crate) fn azure(refusal: &Refusal, id: &str) -> (u16, Value) {
    let (code, message) = match refusal {
        Refusal::NoCredential | Refusal::BadCredential | Refusal::ExpiredCredential => {
            ("401", "Access denied due to invalid subscription key or wrong API endpoint.".to_owned())
        }
        Refusal::NoSuchPath => ("404", "Resource not found".to_owned()),
        Refusal::NoSuchModel(_) => {
            ("DeploymentNotFound", "The API deployment for this resource does not exist.".to_owned())
        }
        Refusal::RateLimited => {
            ("429", "Requests have exceeded the call rate limit of your tier.".to_owned())
        }
        Refusal::Filtered => ("content_filter", "The response was filtered.".to_owned()),
        _ => return openai(refusal, id),
    };
    (refusal.status(), json!({ "error": { "code": code, "message": message } }))
}

/// <https://docs.bigmodel.cn/cn/api/api-code>
pub(crate) fn zhipu(refusal: &Refusal, _id: &str) -> (u16, Value) {
    let (status, code, message) = match refusal {
        Refusal::NoCredential => {
            (401, "1001", "Header中未收到Authentication参数，无法进行身份验证".to_owned())
        }
        Refusal::BadCredential => {
            (401, "1002", "Authentication Token非法，请确认Authentication Token正确传递".to_owned())
        }
        Refusal::ExpiredCredential => (401, "1003", "Authentication Token已过期，请重新生成/获取".to_owned()),
        Refusal::NoSuchPath => (404, "1212", "当前模型不支持该调用方式".to_owned()),
        Refusal::NoSuchModel(_) => (400, "1211", "模型不存在，请检查模型代码".to_owned()),
        Refusal::NoJson => (400, "1210", "API调用参数有误，请检查文档".to_owned()),
        Refusal::Missing(name) => (400, "1213", format!("未正常接收到{name}参数")),
        Refusal::Invalid(name, _) => (400, "1214", format!("{name}参数非法。请检查文档")),
        Refusal::TooLong => (400, "1261", "Prompt 超长".to_owned()),
        Refusal::Filtered => (400, "1301", "系统检测到输入或生成内容可能包含不安全或敏感内容".to_owned()),
        Refusal::RateLimited => (429, "1302", "您的账户已达到速率限制，请您控制请求频率".to_owned()),
        Refusal::Overloaded => (429, "1305", "该模型当前访问量过大，请您稍后再试".to_owned()),
        Refusal::Broken => (500, "1234", "网络错误，请联系客服".to_owned()),
    };
    (status, json!({ "error": { "code": code, "message": message } }))
}

/// <https://platform.baichuan-ai.com/docs/api>
pub(crate) fn baichuan(refusal: &Refusal, _id: &str) -> (u16, Value) {
    let (kind, code) = match refusal {
        Refusal::NoCredential | Refusal::BadCredential | Refusal::ExpiredCredential => {
            ("invalid_request_error", "invalid_api_key")
        }
        Refusal::RateLimited => ("rate_limit_error", "rate_limit_exceeded"),
        Refusal::Overloaded => ("engine_error", "engine_overloaded"),
        Refusal::Broken => ("server_error", "internal_server_error"),
        Refusal::NoSuchModel(_) => ("invalid_request_error", "invalid_model"),
        Refusal::Filtered => ("invalid_request_error", "content_filter"),
        _ => ("invalid_request_error", "invalid_argument"),
    };
    let status = if matches!(refusal, Refusal::NoSuchModel(_)) { 400 } else { refusal.status() };
    let error =
        json!({ "code": code, "param": refusal.field(), "type": kind, "message": refusal.sentence() });
    (status, json!({ "error": error }))
}

/// <https://api-docs.deepseek.com/quick_start/error_codes>
pub(crate) fn deepseek(refusal: &Refusal, _id: &str) -> (u16, Value) {
    let (status, kind) = match refusal {
        Refusal::NoCredential | Refusal::BadCredential | Refusal::ExpiredCredential => {
            (401, "authentication_error")
        }
        Refusal::NoSuchModel(_) => (400, "invalid_request_error"),
        Refusal::Invalid(..) => (422, "invalid_request_error"),
        Refusal::RateLimited => (429, "rate_limit_error"),
        Refusal::Overloaded => (503, "service_unavailable_error"),
        Refusal::Broken => (refusal.status(), "server_error"),
        _ => (refusal.status(), "invalid_request_error"),
    };
    let message = match refusal {
        Refusal::BadCredential => "Authentication Fails (no such user)".to_owned(),
        Refusal::NoSuchModel(_) => "Model Not Exist".to_owned(),
        other => other.sentence(),
    };
    let error = json!({ "message": message, "type": kind, "param": null, "code": "invalid_request_error" });
    (status, json!({ "error": error }))
}

/// <https://platform.moonshot.cn/docs/api/chat>
pub(crate) fn moonshot(refusal: &Refusal, _id: &str) -> (u16, Value) {
    let (status, kind) = match refusal {
        Refusal::NoCredential | Refusal::ExpiredCredential => (401, "invalid_authentication_error"),
        Refusal::BadCredential => (401, "incorrect_api_key_error"),
        Refusal::NoSuchPath | Refusal::NoSuchModel(_) => (404, "resource_not_found_error"),
        Refusal::RateLimited => (429, "rate_limit_reached_error"),
        Refusal::Overloaded => (429, "engine_overloaded_error"),
        Refusal::Broken => (refusal.status(), "server_error"),
        Refusal::Filtered => (400, "content_filter"),
        _ => (400, "invalid_request_error"),
    };
    (status, json!({ "error": { "message": refusal.sentence(), "type": kind } }))
}

/// <https://docs.siliconflow.cn/cn/faqs/error-code>
pub(crate) fn siliconflow(refusal: &Refusal, _id: &str) -> (u16, Value) {
    let (status, body) = match refusal {
        Refusal::NoCredential | Refusal::BadCredential | Refusal::ExpiredCredential => {
            (401, json!("Invalid token"))
        }
        Refusal::NoSuchPath => (404, json!("404 page not found")),
        Refusal::NoSuchModel(_) => (
            400,
            json!({ "code": 20012, "message": "Model does not exist. Please check it carefully.", "data": null }),
        ),
        Refusal::RateLimited => {
            let message = "Request was rejected due to rate limiting. Details:RPM limit reached.";
            (429, json!({ "code": 50603, "message": message, "data": null }))
        }
        Refusal::Overloaded => {
            let message = "Model service overloaded. Please try again later.";
            (503, json!({ "code": 50505, "message": message, "data": null }))
        }
        Refusal::Broken => {
            (refusal.status(), json!({ "code": 50507, "message": "Unknown error", "data": null }))
        }
        other => (400, json!({ "code": 20015, "message": other.sentence(), "data": null })),
    };
    (status, body)
}

/// <https://www.volcengine.com/docs/82379/1299023>
pub(crate) fn volcengine(refusal: &Refusal, id: &str) -> (u16, Value) {
    let (status, code, kind) = match refusal {
        Refusal::NoCredential | Refusal::BadCredential | Refusal::ExpiredCredential => {
            (401, "AuthenticationError", "Unauthorized")
        }
        Refusal::NoSuchPath => (404, "InvalidAction", "NotFound"),
        Refusal::NoSuchModel(_) => (404, "InvalidEndpointOrModel.NotFound", "NotFound"),
        Refusal::Missing(_) => (400, "MissingParameter", "BadRequest"),
        Refusal::Filtered => (400, "SensitiveContentDetected", "BadRequest"),
        Refusal::RateLimited => (429, "RateLimitExceeded.EndpointRPMExceeded", "TooManyRequests"),
        Refusal::Overloaded => (429, "ServerOverloaded", "TooManyRequests"),
        Refusal::Broken => (refusal.status(), "InternalServiceError", "InternalServerError"),
        _ => (400, "InvalidParameter", "BadRequest"),
    };
    let message = format!("{} Request id: {id}", refusal.sentence());
    let error = json!({ "code": code, "message": message, "param": refusal.field().unwrap_or_default(), "type": kind });
    (status, json!({ "error": error }))
}

/// <https://cloud.baidu.com/doc/qianfan-docs/s/Mm8r1mejk>
pub(crate) fn qianfan(refusal: &Refusal, id: &str) -> (u16, Value) {
    let (code, kind) = match refusal {
        Refusal::NoCredential | Refusal::BadCredential => ("invalid_iam_token", "invalid_request_error"),
        Refusal::ExpiredCredential => ("expired_iam_token", "invalid_request_error"),
        Refusal::NoSuchPath => ("no_such_api", "invalid_request_error"),
        Refusal::NoSuchModel(_) => ("invalid_model", "invalid_request_error"),
        Refusal::NoJson => ("malformed_json", "invalid_request_error"),
        Refusal::RateLimited => ("rpm_rate_limit_exceeded", "rate_limit_exceeded"),
        Refusal::Overloaded => ("server_high_load", "server_error"),
        Refusal::Broken => ("internal_error", "internal_error"),
        Refusal::Filtered => ("content_filter", "invalid_request_error"),
        _ => ("invalid_argument", "invalid_request_error"),
    };
    let error = json!({ "code": code, "message": refusal.sentence(), "type": kind });
    (refusal.status(), json!({ "error": error, "id": id }))
}
