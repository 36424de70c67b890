package main

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/flipcall"
)

// A peer is a gVisor endpoint, and the shutdown that it was told to make.
type peer struct {
	*flipcall.Endpoint
	options
	// Calls completed so far; the goroutine that shuts down during calls reads it.
	done atomic.Int64
	// Closed once Shutdown has returned in that goroutine.
	returned chan struct{}
}

// open maps the window, and shuts the endpoint down at once if that is what was asked.
func open(side flipcall.EndpointSide, window flipcall.PacketWindowDescriptor, o options) (*peer, error) {
	endpoint, err := flipcall.NewEndpoint(side, window)
	if err != nil {
		return nil, err
	}
	p := &peer{Endpoint: endpoint, options: o, returned: make(chan struct{})}
	switch o.shutdown {
	case "before":
		p.Shutdown()
	case "during":
		go p.interrupt()
	}
	return p, nil
}

// interrupt shuts the endpoint down while the main goroutine is in the middle of its calls, and says when it did: a reader of
// standard output can tell a Shutdown that hangs from a call that hangs.
func (p *peer) interrupt() {
	for p.done.Load() < int64(p.calls) {
		time.Sleep(100 * time.Microsecond)
	}
	time.Sleep(p.delay)
	fmt.Println("shutdown=called")
	start := time.Now()
	p.Shutdown()
	fmt.Printf("shutdown=returned us=%d\n", time.Since(start).Microseconds())
	close(p.returned)
}

// roundTrip flips control to the other side and waits for it to come back.
func (p *peer) roundTrip(length uint32) (uint32, error) {
	if p.fast {
		return p.SendRecvFast(length)
	}
	return p.SendRecv(length)
}

// finish turns the error that ended the calls into the result of the process: with a shutdown of our own the only acceptable error
// is gVisor's ShutdownError.
func (p *peer) finish(err error) error {
	if p.shutdown == "during" {
		<-p.returned
	}
	var down flipcall.ShutdownError
	if p.shutdown != "" && errors.As(err, &down) {
		fmt.Printf("shutdown=%s calls=%d error=%q\n", p.shutdown, p.done.Load(), err)
		return nil
	}
	return err
}

// serve answers every call with its bytes plus one. A shutdown by the client is how it ends.
func serve(window flipcall.PacketWindowDescriptor, o options) error {
	p, err := open(flipcall.ServerSide, window, o)
	if err != nil {
		return err
	}
	defer p.Destroy()
	data := p.Data()
	length, err := p.RecvFirst()
	for err == nil {
		if p.shutdown == "after" && p.done.Load() == int64(p.calls) {
			p.Shutdown()
		}
		datagram := data[:length]
		for i := range datagram {
			datagram[i]++
		}
		p.done.Add(1)
		length, err = p.roundTrip(length)
	}
	err = p.finish(err)
	var down flipcall.ShutdownError
	if errors.As(err, &down) {
		return nil
	}
	return err
}

// call makes the calls and checks every byte of every answer.
func call(window flipcall.PacketWindowDescriptor, o options) error {
	p, err := open(flipcall.ClientSide, window, o)
	if err != nil {
		return err
	}
	defer p.Destroy()
	if err := p.Connect(); err != nil {
		return p.finish(err)
	}
	if o.payload > int(p.DataCap()) {
		return fmt.Errorf("a payload of %d bytes does not fit the window's %d", o.payload, p.DataCap())
	}
	start := time.Now()
	err = p.stream()
	elapsed := time.Since(start)
	if o.shutdown == "after" && err == nil {
		p.Shutdown()
		_, err = p.roundTrip(0)
	}
	if o.shutdown != "" || err != nil {
		return p.finish(err)
	}
	p.Shutdown()
	perCall := float64(elapsed.Nanoseconds()) / float64(max(o.calls, 1))
	fmt.Printf("calls=%d bytes=%d ns_per_call=%.1f\n", o.calls, o.calls*o.payload, perCall)
	return nil
}

// stream makes one call after the other: as many as asked, or, if the other goroutine is to shut down, until it does.
func (p *peer) stream() error {
	// A call's bytes count up from a seed of its own, so a stale answer never passes for the right one. One table holds them all.
	count := make([]byte, p.payload+257)
	for i := range count {
		count[i] = byte(i)
	}
	data := p.Data()[:p.payload]
	for n := 0; n < p.calls || p.shutdown == "during"; n++ {
		seed := n % 256
		copy(data, count[seed:])
		length, err := p.roundTrip(uint32(p.payload))
		if err != nil {
			return err
		}
		if int(length) != p.payload {
			return fmt.Errorf("call %d: an answer of %d bytes to one of %d", n, length, p.payload)
		}
		if !bytes.Equal(data, count[seed+1:seed+1+p.payload]) {
			return fmt.Errorf("call %d: the answer is not the call plus one", n)
		}
		p.done.Add(1)
	}
	return nil
}
