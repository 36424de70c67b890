// Command interop plays one end of a flipcall connection with gVisor's own package, so that the Rust engine is tested against the
// implementation it claims to be wire compatible with.
//
//	interop server|client --fd N --offset O --length L [--calls N] [--payload BYTES]
//	interop server|client --allocate SIZE [--skip SIZE] --send-fd N [...]
//	interop attack NAME --fd N --offset O --length L
//
// The first form behaves as `flipcall endpoint` does: a server adds one to every byte of a datagram and sends it back until it is
// shut down; a client makes its calls, checks every byte of every answer, prints one line and shuts down. The second form makes the
// window with gVisor's allocator and sends it over an inherited Unix socket before it begins: one message, the text "offset
// length\n" and the memfd. The third form is a hostile server (see attack.go).
//
// Exit status 0: all went as asked. 1: an error, which standard error names. 2: the command line made no sense.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"gvisor.dev/gvisor/pkg/flipcall"
)

// options is what the command line says.
type options struct {
	// Where the packet window is.
	fd, offset, length int
	// How many calls a client makes, and how many bytes each carries.
	calls, payload int
	// The CPU this process is pinned to, or -1.
	cpu int
	// Whether calls go through SendRecvFast.
	fast bool
	// The size of the window to allocate (0: the window is inherited), the size of one to allocate and leave unused before it,
	// and the socket over which it is sent.
	allocate, skip, sendFD int
	// When this side shuts the connection down: "", "before", "during" or "after" calls.
	shutdown string
	// How long after the last of its calls a shutdown "during" calls comes.
	delay time.Duration
	// How long an attacker lives.
	life time.Duration
	// The state that the attack "state" writes.
	value uint
}

func parse(arguments []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("interop", flag.ContinueOnError)
	flags.IntVar(&o.fd, "fd", -1, "descriptor of the memfd")
	flags.IntVar(&o.offset, "offset", 0, "offset of the window in bytes")
	flags.IntVar(&o.length, "length", 0, "length of the window in bytes")
	flags.IntVar(&o.calls, "calls", 1000, "calls that a client makes")
	flags.IntVar(&o.payload, "payload", 48, "bytes of each call")
	flags.IntVar(&o.cpu, "cpu", -1, "CPU to run on")
	flags.BoolVar(&o.fast, "fast", false, "use SendRecvFast")
	flags.IntVar(&o.allocate, "allocate", 0, "allocate a window of at least so many bytes")
	flags.IntVar(&o.skip, "skip", 0, "allocate a window of so many bytes before that one")
	flags.IntVar(&o.sendFD, "send-fd", -1, "socket that takes the allocated window")
	flags.StringVar(&o.shutdown, "shutdown", "", "shut down before, during or after the calls")
	delay := flags.Int("delay-ms", 0, "how long a shutdown during calls waits")
	life := flags.Int("life-ms", 20_000, "how long an attacker lives")
	flags.UintVar(&o.value, "value", 7, "state that an attack writes")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	o.delay = time.Duration(*delay) * time.Millisecond
	o.life = time.Duration(*life) * time.Millisecond
	switch o.shutdown {
	case "", "before", "during", "after":
	default:
		return o, fmt.Errorf("--shutdown %q is none of before, during, after", o.shutdown)
	}
	if flags.NArg() != 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return o, nil
}

func run(role string, o options) error {
	if o.cpu >= 0 {
		if err := pin(o.cpu); err != nil {
			return err
		}
	}
	window := flipcall.PacketWindowDescriptor{FD: o.fd, Offset: int64(o.offset), Length: o.length}
	if o.allocate > 0 {
		var err error
		if window, err = allocate(o); err != nil {
			return err
		}
	}
	if role == "server" {
		return serve(window, o)
	}
	return call(window, o)
}

func main() {
	usage := func(why any) {
		fmt.Fprintln(os.Stderr, "interop:", why)
		os.Exit(2)
	}
	if len(os.Args) < 2 {
		usage("server, client or attack?")
	}
	role, rest := os.Args[1], os.Args[2:]
	var name string
	switch {
	case role == "attack" && len(rest) > 0:
		name, rest = rest[0], rest[1:]
	case role != "server" && role != "client":
		usage("server, client or attack NAME?")
	}
	o, err := parse(rest)
	if err != nil {
		usage(err)
	}
	if role == "attack" {
		err = attack(name, o)
	} else {
		err = run(role, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}
