//! Usage, budgets and prices of a server. Needs the admin token, or a key with the scope `admin`.

use byzerllm_core::Result;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::Client;

impl Client {
    /// Sums of what attempts cost, with a row for each value of `by`: `deployment`, `key`, `model`, `vendor` or `day`;
    /// of attempts that began from `since` on, in seconds since 1970.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn usage(&self, by: &str, since: Option<u64>) -> Result<Value> {
        let mut query = vec![("by", by.to_owned())];
        query.extend(since.map(|since| ("since", since.to_string())));
        self.http.json(Method::GET, &["byzerllm", "v1", "usage"], &query, None).await
    }

    /// All budgets and where they stand.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn list_budgets(&self) -> Result<Vec<Value>> {
        match self.http.json(Method::GET, &["byzerllm", "v1", "budgets"], &[], None).await? {
            Value::Array(list) => Ok(list),
            _ => Err(self.odd("the list of budgets")),
        }
    }

    /// Sets a budget: `subject`, `name`, `period`, `limit` and `allow_unknown_price`. The answer is where it stands.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn set_budget(&self, budget: &Value) -> Result<Value> {
        self.http.json(Method::POST, &["byzerllm", "v1", "budgets"], &[], Some(budget)).await
    }

    /// Removes a budget, by its number.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn remove_budget(&self, id: u64) -> Result<()> {
        let id = id.to_string();
        self.http.send(Method::DELETE, &["byzerllm", "v1", "budgets", &id], &[], None).await?;
        Ok(())
    }

    /// The prices in force.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn list_prices(&self) -> Result<Vec<Value>> {
        let answer = self.http.json(Method::GET, &["byzerllm", "v1", "prices"], &[], None).await?;
        self.prices(answer)
    }

    /// Sets prices, all or none, and answers with all in force.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn set_prices(&self, prices: &[Value]) -> Result<Vec<Value>> {
        let body = json!({ "prices": prices });
        let answer = self.http.json(Method::POST, &["byzerllm", "v1", "prices"], &[], Some(&body)).await?;
        self.prices(answer)
    }

    /// Takes a price out of force, by its number.
    ///
    /// # Errors
    /// As [`Client::deploy`].
    pub async fn remove_price(&self, id: u64) -> Result<()> {
        let id = id.to_string();
        self.http.send(Method::DELETE, &["byzerllm", "v1", "prices", &id], &[], None).await?;
        Ok(())
    }

    fn prices(&self, answer: Value) -> Result<Vec<Value>> {
        match answer {
            Value::Array(list) => Ok(list),
            _ => Err(self.odd("the list of prices")),
        }
    }
}
