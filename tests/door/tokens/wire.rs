//! The door on a port, and requests written byte by byte.

use std::net::SocketAddr;

use axum::Router;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

pub struct Wire {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

/// What came back.
pub struct Said {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Said {
    /// `200`, or the status with reason and claim.
    pub fn in_short(&self) -> String {
        let text = |name: &str| self.body[name].as_str();
        match (text("reason"), text("claim"), text("code")) {
            (Some(reason), Some(claim), _) => format!("{} `{reason}` ({claim})", self.status),
            (Some(reason), None, _) => format!("{} `{reason}`", self.status),
            (None, _, Some(code)) => format!("{} `{code}`", self.status),
            (None, _, None) => self.status.to_string(),
        }
    }
}

impl Wire {
    pub async fn serve(router: Router) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Wire { address, serving }
    }

    /// GET with these header lines.
    pub async fn get_with(&self, path: &str, lines: &[String]) -> Said {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        for line in lines {
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut from, mut to) = stream.into_split();
        // a door that has heard enough may answer and close before all is written
        let writing = tokio::spawn(async move {
            let _ = to.write_all(request.as_bytes()).await;
            to
        });
        let mut answer = Vec::new();
        let mut block = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut block).await {
            answer.extend_from_slice(&block[..count]);
        }
        drop(writing.await.unwrap());
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer: {answer:?}"));
        Said { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() }
    }

    pub async fn get(&self, path: &str, token: &str) -> Said {
        self.get_with(path, &[format!("Authorization: Bearer {token}")]).await
    }

    /// The short answer to a token.
    pub async fn try_token(&self, token: &str) -> String {
        self.get(super::PATH, token).await.in_short()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
