//! A VMM-like loop: four threads, each a virtual CPU with a warm channel of its own, read and write registers of a device model in
//! another process. `cargo run --release --example device`.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flipcall::process::InheritedFds;
use flipcall::rpc::{CallError, Client, Context, Router, Server, Status, inherited_socket};

flipcall::service! {
    /// A device with registers of 64 bits.
    service Device with DeviceClient {
        /// What a register holds.
        0x0001 => fn read(register: u32) -> u64;
        /// Sets a register.
        0x0002 => fn write(register: u32, value: u64) -> ();
    }
}

/// Registers of the device.
const REGISTERS: usize = 64;
/// Threads that use it.
const CPUS: u32 = 4;
/// Reads and writes of each thread.
const ACCESSES: u64 = 20_000;
/// How long a guest may be stalled by its device.
const PATIENCE: Duration = Duration::from_secs(5);

struct Model([AtomicU64; REGISTERS]);

impl Model {
    fn register(&self, number: u32) -> Result<&AtomicU64, Status> {
        self.0.get(number as usize).ok_or_else(|| Status::invalid_argument("no such register"))
    }
}

impl Device for Model {
    fn read(&self, _: &mut Context<'_>, register: u32) -> Result<u64, Status> {
        Ok(self.register(register)?.load(Ordering::Relaxed))
    }

    fn write(&self, _: &mut Context<'_>, register: u32, value: u64) -> Result<(), Status> {
        self.register(register)?.store(value, Ordering::Relaxed);
        Ok(())
    }
}

fn run_cpu(device: &DeviceClient, cpu: u32) -> Result<(), CallError> {
    for value in 0..ACCESSES / 2 {
        device.write(cpu, value, PATIENCE)?;
        assert_eq!(device.read(cpu, PATIENCE)?, value);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[allow(unsafe_code, reason = "nobody else can state that they belong to nobody")]
    // SAFETY: this is the start of `main`: nothing in this process owns an inheritable descriptor above 2.
    let inherited = unsafe { InheritedFds::claim() };
    if let Ok(socket) = inherited_socket(&inherited) {
        let mut router = Router::new();
        Arc::new(Model(std::array::from_fn(|_| AtomicU64::new(0)))).route(&mut router);
        return Ok(Server::new(router, Default::default()).serve_one(socket)?);
    }
    let (client, mut process) = Client::spawn(Command::new(std::env::current_exe()?), Default::default(), PATIENCE)?;
    let device = DeviceClient::new(client);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let cpus: Vec<_> = (0..CPUS)
            .map(|cpu| {
                scope.spawn({
                    let device = &device;
                    move || run_cpu(device, cpu)
                })
            })
            .collect();
        cpus.into_iter().try_for_each(|cpu| cpu.join().expect("a virtual CPU does not panic"))
    })?;
    let accesses = u64::from(CPUS) * ACCESSES;
    println!("{accesses} register accesses, {} ns each", begun.elapsed().as_nanos() / u128::from(accesses));
    println!("{:?}", device.client().counters());
    drop(device);
    process.wait(PATIENCE)?;
    Ok(())
}
