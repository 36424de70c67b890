//! What a started process finds of its window and of its parent.

mod attacker;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use attacker::control::Control;
use attacker::raw::{inherited, outlive_parent};
use attacker::{AGES, PAGE, Role, Stage, alone, command};
use flipcall::Error;
use flipcall::endpoint::{Inherited, Options, Spawned};
use flipcall::process::pass_descriptor;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

const ROLES: &[Role] = &[
    ("looks for its window", looks_for_its_window),
    ("has another file under that number", has_another_file_under_that_number),
    ("starts another", starts_another),
    ("serves and says how it ended", serves_and_says_how_it_ended),
];

/// Not a test: the entry of the second process.
#[test]
fn second_process() {
    attacker::play(&[ROLES]);
}

fn looks_for_its_window(stage: Stage) {
    let found = Inherited::from_env(&inherited()).map(drop).map_err(|error| format!("{}: {error:#}", error.kind()));
    stage.control.say(&found.err().unwrap_or("found".into()));
}

/// A file that could be a window, and the end of a socket.
fn inheritance(seals: SealFlags) -> [OwnedFd; 2] {
    let file = memfd_create("inherited", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, u64::from(PAGE)).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    [file, std::os::unix::net::UnixStream::pair().unwrap().0.into()]
}

/// What a process says that is started with such an inheritance; `FILE` and `SOCKET` in the variable stand for their numbers.
fn told(variable: Option<&str>, seals: SealFlags) -> String {
    let (mut command, control) = command("looks for its window", "", &[]);
    let left = inheritance(seals);
    let [file, socket] = left.each_ref().map(|fd| pass_descriptor(&mut command, fd).unwrap().to_string());
    match variable {
        Some(value) => command.env("FLIPCALL_WINDOW", value.replace("FILE", &file).replace("SOCKET", &socket)),
        None => command.env_remove("FLIPCALL_WINDOW"),
    };
    let mut child = command.spawn().expect("the second process starts");
    let said = control.hear();
    assert!(child.wait().unwrap().success());
    said
}

#[test]
fn the_variable_that_names_a_window_is_not_trusted() {
    const OURS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
    let _alone = alone();
    assert_eq!(told(Some("FILE,0,4096,SOCKET"), OURS), "found");
    for (value, said) in [
        ("", "invalid-input"),
        ("FILE,0,4096", "invalid-input"),
        ("FILE,0,4096,SOCKET,1", "invalid-input"),
        ("FILE,0,4096,x", "invalid-input"),
        ("FILE,0,4294967296,SOCKET", "invalid-input"),
        ("FILE,-1,4096,SOCKET", "invalid-input"),
        ("0,0,4096,SOCKET", "invalid-input"),
        ("990,0,4096,SOCKET", "invalid-input"),
        ("FILE,0,4096,FILE", "invalid-input"),
        ("FILE,0,4097,SOCKET", "refused"),
        ("FILE,4096,4096,SOCKET", "refused"),
        ("FILE,1,4096,SOCKET", "refused"),
        ("SOCKET,0,4096,FILE", "refused"),
    ] {
        let told = told(Some(value), OURS);
        assert!(told.starts_with(said), "{value}: {told}");
    }
    assert!(told(None, OURS).starts_with("invalid-input"));
    // The window of a parent is sealed strictly, or it is not one of ours.
    let lax = told(Some("FILE,0,4096,SOCKET"), SealFlags::SHRINK);
    assert!(lax.starts_with("refused") && lax.contains("F_SEAL_GROW"), "{lax}");
}

/// The number that the variable names belongs to a file of a third party.
fn has_another_file_under_that_number(stage: Stage) {
    attacker::many_descriptors();
    let file = std::fs::File::open("/dev/null").unwrap();
    let file = rustix::io::fcntl_dupfd_cloexec(&file, NUMBER).unwrap();
    assert_eq!(file.as_raw_fd(), NUMBER);
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let error = Inherited::from_env(&inherited()).expect_err("that is no window");
    assert!(rustix::io::fcntl_getfd(&file).is_ok_and(|flags| flags.is_empty()), "it is open, and as it was");
    stage.control.say(error.kind().name());
}

/// A number that nothing uses by chance.
const NUMBER: i32 = 700;

/// The environment is inherited further than descriptors are: a program that was started by the child of another finds that one's variable,
/// and under its numbers something else.
#[test]
fn a_file_that_is_not_the_one_handed_over_is_neither_taken_nor_closed() {
    let _alone = alone();
    let (mut command, control) = command("has another file under that number", "", &[]);
    command.env("FLIPCALL_WINDOW", format!("{NUMBER}:1:2,0,4096,{NUMBER}:1:3"));
    let mut child = command.spawn().expect("the second process starts");
    control.expect("invalid-input");
    assert!(child.wait().unwrap().success());
}

/// Starts a third process, which talks to the test itself, connects to it and calls it without an end.
fn starts_another(stage: Stage) {
    let (command, _control) = command("serves and says how it ended", "", &[stage.fds[0].as_fd()]);
    let mut child = Spawned::start(command, PAGE, Options::new()).expect("the third process starts");
    let mut endpoint = child.connect(AGES).expect("it serves");
    endpoint.send_recv(1, AGES).expect("an answer");
    child.detach().expect("it outlives this process, to say how it ended");
    stage.control.say("connected");
    let _ = stage.control.listen();
    unreachable!("the test ends this process");
}

fn serves_and_says_how_it_ended(mut stage: Stage) {
    outlive_parent();
    let to_the_test = Control::new(stage.fds.remove(0));
    assert!(to_the_test.as_fd().as_raw_fd() > 2);
    let serve = || -> Result<(), Error> {
        let server = Inherited::from_env(&inherited())?.into_acceptor(Options::new())?;
        let (mut endpoint, mut length) = server.recv_first(AGES)?;
        loop {
            length = endpoint.send_recv(length, AGES)?;
        }
    };
    to_the_test.say(serve().expect_err("it ends some time").kind().name());
}

#[test]
fn a_child_notices_that_its_parent_was_killed() {
    let _alone = alone();
    let (ours, theirs) = Control::pair();
    let parent = attacker::Peer::start("starts another", "", &[theirs.as_fd()]);
    drop(theirs);
    parent.control.expect("connected");
    let start = std::time::Instant::now();
    drop(parent);
    ours.expect("peer-gone");
    attacker::promised_once(
        "kill -9 of a parent: noticed after",
        start.elapsed(),
        std::time::Duration::from_millis(100),
    );
}
