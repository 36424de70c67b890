//! A key-value service in a process of its own: `cargo run --example kv`.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flipcall::process::InheritedFds;
use flipcall::rpc::{Client, Code, Context, Router, Server, Status, inherited_socket};

flipcall::service! {
    /// A store of byte strings.
    pub service Store with StoreClient {
        /// The value of a key.
        0x0101 => fn get(key: &str) -> Vec<u8>;
        /// Sets a value; the answer says whether there was one before.
        0x0102 => fn set(key: &str, value: &[u8]) -> bool;
        /// All keys, sorted.
        0x0103 => fn keys() -> Vec<String>;
    }
}

#[derive(Default)]
struct InMemory(Mutex<HashMap<String, Vec<u8>>>);

impl Store for InMemory {
    fn get(&self, _: &mut Context<'_>, key: &str) -> Result<Vec<u8>, Status> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(key).cloned().ok_or_else(|| Status::new(Code::InvalidArgument, "no such key").op("get").path(key))
    }

    fn set(&self, _: &mut Context<'_>, key: &str, value: &[u8]) -> Result<bool, Status> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(map.insert(key.to_owned(), value.to_owned()).is_some())
    }

    fn keys(&self, _: &mut Context<'_>) -> Result<Vec<String>, Status> {
        let mut keys: Vec<String> = self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        keys.sort();
        Ok(keys)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[allow(unsafe_code, reason = "nobody else can state that they belong to nobody")]
    // SAFETY: this is the start of `main`: nothing in this process owns an inheritable descriptor above 2.
    let inherited = unsafe { InheritedFds::claim() };
    if let Ok(socket) = inherited_socket(&inherited) {
        let mut router = Router::new();
        Arc::new(InMemory::default()).route(&mut router);
        return Ok(Server::new(router, Default::default()).serve_one(socket)?);
    }
    let (client, mut server) =
        Client::spawn(Command::new(std::env::current_exe()?), Default::default(), Duration::from_secs(5))?;
    let store = StoreClient::new(client);
    let patience = Duration::from_secs(5);
    assert!(!store.set("answer", b"41", patience)?);
    assert!(store.set("answer", b"42", patience)?);
    assert_eq!(store.get("answer", patience)?, b"42");
    assert_eq!(store.keys(patience)?, ["answer"]);
    if let Err(error) = store.get("question", patience) {
        println!("{error:#}");
    }
    drop(store);
    server.wait(patience)?;
    Ok(())
}
