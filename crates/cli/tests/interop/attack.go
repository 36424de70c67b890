package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The words of the header, as indices of 32-bit words.
const (
	stateWord  = 0
	lengthWord = 1
	// A word of the datagram that serves as the futex onto which waiters are moved.
	graveWord = 8
	header    = 16
)

// The states.
const (
	clientActive = 0
	serverActive = 1
)

// Futex operations on a word that processes share, and the bit that a priority inheriting waiter sets in it.
const (
	futexWait    = 0
	futexWake    = 1
	futexRequeue = 3
	futexLockPI  = 6
	futexWaiters = 1 << 31
)

// hostile is the attacker's own mapping of the window. It uses nothing of gVisor's package.
type hostile struct {
	memory []byte
	fd     int
	life   time.Time
}

// An assault is what the attacker does once the victim, a client, waits for an answer.
type assault func(h *hostile, o options) error

// assaults by name. They begin in the first call after an honest handshake, and print "ready" once they are in place.
var assaults = map[string]assault{
	"silent":      (*hostile).silent,
	"state":       (*hostile).badState,
	"length":      (*hostile).badLength,
	"length-race": (*hostile).raceLength,
	"requeue":     (*hostile).requeue,
	"pi":          (*hostile).lockPI,
	"waiters":     (*hostile).waiters,
	"storm":       (*hostile).storm,
	"punch":       (*hostile).punch,
	"truncate":    (*hostile).truncate,
}

// hellos are the answers that a hostile server gives to the handshake.
var hellos = map[string]func(o options) []byte{
	"hello-garbage":  func(options) []byte { return []byte("not JSON\n") },
	"hello-trailing": func(options) []byte { return []byte("{}\n{}") },
	"hello-newline":  func(options) []byte { return []byte("{}") },
	"hello-deep": func(options) []byte {
		return []byte(strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 64) + "\n")
	},
	"hello-huge": func(o options) []byte {
		return []byte(`{"a":"` + strings.Repeat("x", o.length-header-16) + "\"}\n")
	},
}

func attack(name string, o options) error {
	memory, err := unix.Mmap(o.fd, int64(o.offset), o.length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	h := &hostile{memory: memory, fd: o.fd, life: time.Now().Add(o.life)}
	if hello, known := hellos[name]; known {
		h.await()
		h.answer(hello(o))
		return h.silent(o)
	}
	assault, known := assaults[name]
	if !known {
		return fmt.Errorf("no attack is called %q", name)
	}
	h.await()
	h.answer([]byte("{}\n"))
	h.await()
	// The victim has flipped; give it the time to fall asleep.
	time.Sleep(50 * time.Millisecond)
	return assault(h, o)
}

func (h *hostile) word(index int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&h.memory[4*index]))
}

// futex makes one futex system call on a word of the window.
func (h *hostile) futex(index, operation int, value, timeout uintptr, second int) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(h.word(index))), uintptr(operation), value, timeout,
		uintptr(unsafe.Pointer(h.word(second))), 0)
	return errno
}

func (h *hostile) wake(count uintptr) {
	h.futex(stateWord, futexWake, count, 0, stateWord)
}

// await polls until the victim has handed over control.
func (h *hostile) await() {
	for h.word(stateWord).Load() != serverActive && h.alive() {
		time.Sleep(50 * time.Microsecond)
	}
}

func (h *hostile) alive() bool {
	return time.Now().Before(h.life)
}

// answer is what an honest server does, whatever the bytes say.
func (h *hostile) answer(datagram []byte) {
	copy(h.memory[header:], datagram)
	h.flip(uint32(len(datagram)))
}

func (h *hostile) flip(length uint32) {
	h.word(lengthWord).Store(length)
	h.word(stateWord).Store(clientActive)
	h.wake(1)
}

// increment does what a server is there for.
func (h *hostile) increment(payload int) {
	for i := range h.memory[header : header+payload] {
		h.memory[header+i]++
	}
}

// linger keeps the attacker alive, doing something again and again, for as long as it may live.
func (h *hostile) linger(again func()) error {
	fmt.Println("ready")
	for h.alive() {
		again()
	}
	return nil
}

// silent never answers.
func (h *hostile) silent(options) error {
	return h.linger(func() { time.Sleep(10 * time.Millisecond) })
}

// badState writes a state that the protocol does not know.
func (h *hostile) badState(o options) error {
	h.word(stateWord).Store(uint32(o.value))
	h.wake(1)
	return h.silent(o)
}

// badLength announces one byte more than fits.
func (h *hostile) badLength(o options) error {
	h.flip(uint32(o.length - header + 1))
	return h.silent(o)
}

// raceLength answers honestly, except that the length changes under the victim's eyes all the time.
func (h *hostile) raceLength(o options) error {
	go func() {
		for {
			h.word(lengthWord).Store(uint32(o.payload))
			h.word(lengthWord).Store(rand.Uint32() | 1<<31)
		}
	}()
	return h.linger(func() {
		if h.word(stateWord).Load() == serverActive {
			h.increment(o.payload)
			h.flip(uint32(o.payload))
		}
	})
}

// requeue moves whoever sleeps on the state word to another word, where no wake will find it.
func (h *hostile) requeue(options) error {
	return h.linger(func() {
		h.futex(stateWord, futexRequeue, 0, math.MaxInt32, graveWord)
		time.Sleep(20 * time.Microsecond)
	})
}

// lockPI queues a waiter with priority inheritance ahead of the victim: a FUTEX_WAKE of the word fails with EINVAL from then on.
func (h *hostile) lockPI(o options) error {
	runtime.LockOSThread()
	// The kernel queues no such waiter behind an ordinary one, so the victim is moved out of the way meanwhile. It sleeps, and does
	// not see that the state is the thread id of a lock's owner for a moment.
	h.futex(stateWord, futexRequeue, 0, math.MaxInt32, graveWord)
	h.word(stateWord).Store(uint32(unix.Gettid()))
	go func() {
		runtime.LockOSThread()
		h.futex(stateWord, futexLockPI, 0, 0, stateWord)
	}()
	for h.word(stateWord).Load()&futexWaiters == 0 && h.alive() {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
	h.word(stateWord).Store(serverActive)
	// Woken, the victim finds nothing new, and queues behind the other one.
	h.futex(graveWord, futexWake, 1, 0, graveWord)
	time.Sleep(50 * time.Millisecond)
	return h.silent(o)
}

// waiters has a thousand threads wait on the state word, and again whenever they are woken.
func (h *hostile) waiters(o options) error {
	for range 1000 {
		go func() {
			for h.alive() && h.word(stateWord).Load() == serverActive {
				h.futex(stateWord, futexWait, serverActive, 0, stateWord)
			}
		}()
	}
	time.Sleep(500 * time.Millisecond)
	return h.silent(o)
}

// storm wakes the victim for nothing, 100,000 times a second.
func (h *hostile) storm(options) error {
	next := time.Now()
	return h.linger(func() {
		for time.Now().Before(next) {
		}
		next = next.Add(10 * time.Microsecond)
		h.wake(1)
	})
}

// punch takes away every page of the window but the first, then answers, again and again.
func (h *hostile) punch(o options) error {
	page := int64(unix.Getpagesize())
	echo := make([]byte, o.payload)
	return h.linger(func() {
		if h.word(stateWord).Load() != serverActive {
			return
		}
		for i := range echo {
			echo[i] = h.memory[header+i] + 1
		}
		mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
		if err := unix.Fallocate(h.fd, mode, int64(o.offset)+page, int64(o.length)-page); err != nil {
			fmt.Println("punch:", err)
		}
		h.answer(echo)
	})
}

// truncate answers honestly, and empties the file while the victim looks at the answer.
func (h *hostile) truncate(o options) error {
	h.increment(o.payload)
	h.flip(uint32(o.payload))
	if err := unix.Ftruncate(h.fd, 0); err != nil {
		fmt.Println("truncate:", err)
		return h.silent(o)
	}
	fmt.Println("ready")
	time.Sleep(o.life)
	return nil
}
