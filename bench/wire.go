package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// wire is one gRPC stream on an HTTP/2 connection of its own, spoken without a
// gRPC library, so that thousands of them cost little more than their TLS. One
// goroutine uses it.
type wire struct {
	conn   *tls.Conn
	framer *http2.Framer
	// granted is how many bytes the server may still send before it is given
	// more.
	granted int

	// What follows is what the server allows: bytes on the connection and on the
	// stream, the window that a stream begins with, and bytes of a frame.
	onConn, onStream, initial int
	maxFrame                  int
	// queue is what waits to be allowed.
	queue []byte

	// What follows is the message being received: how many of its bytes are
	// still to come, its prefix as far as it is here, and what is kept of it.
	left   int
	prefix []byte
	kept   []byte
	// endsOnly keeps the first bytes in head and the last ones, where version and
	// nonce are, and nothing between.
	endsOnly bool
	head     []byte
	size     int
}

// window is what a server may send without being given more: in effect no flow
// control, as with a client that reads at once.
const window = 1 << 30

// headBytes and tailBytes are kept of a message whose content is not looked at.
const headBytes, tailBytes = 64, 64

// dialPatience bounds a connection's set-up.
const dialPatience = 30 * time.Second

func dialTLS(ctx context.Context, address string, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	dialer := &tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return conn.(*tls.Conn), nil
}

// dialWire opens a connection and on it the stream of a method.
func dialWire(ctx context.Context, address, method string, config *tls.Config) (*wire, error) {
	conn, err := dialTLS(ctx, address, config)
	if err != nil {
		return nil, err
	}
	w := &wire{conn: conn, granted: window, onConn: firstWindow, onStream: firstWindow, initial: firstWindow, maxFrame: firstFrame}
	// All of the beginning goes out in one write, as clients do.
	var begin bytes.Buffer
	begin.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&begin, nil)
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "https"}, {":path", method}, {":authority", address},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "bench"},
	} {
		_ = enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}) // into memory: cannot fail
	}
	err = errors.Join(
		framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window}),
		framer.WriteWindowUpdate(0, window),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}),
	)
	if err == nil {
		_, err = conn.Write(begin.Bytes())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a stream: %w", err), conn.Close())
	}
	w.framer = http2.NewFramer(conn, conn)
	w.framer.SetReuseFrames()
	return w, nil
}

// What every server takes until it says otherwise (RFC 9113, 6.5.2).
const (
	firstWindow = 1<<16 - 1
	firstFrame  = 16 << 10
)

// send writes gRPC messages, as far as the server's windows allow; the rest goes
// out while receive reads what widens them.
func (w *wire) send(messages ...[]byte) error {
	for _, m := range messages {
		w.queue = binary.BigEndian.AppendUint32(append(w.queue, 0), uint32(len(m)))
		w.queue = append(w.queue, m...)
	}
	return w.flush()
}

// flush writes of the queue what is allowed, at once.
func (w *wire) flush() error {
	var out bytes.Buffer
	framer := http2.NewFramer(&out, nil)
	for {
		n := min(len(w.queue), w.maxFrame, w.onConn, w.onStream)
		if n <= 0 {
			break
		}
		if err := framer.WriteData(1, false, w.queue[:n]); err != nil {
			return fmt.Errorf("send a request: %w", err)
		}
		w.queue, w.onConn, w.onStream = w.queue[n:], w.onConn-n, w.onStream-n
	}
	if len(w.queue) == 0 {
		w.queue = nil
	}
	if out.Len() == 0 {
		return nil
	}
	if _, err := w.conn.Write(out.Bytes()); err != nil {
		return fmt.Errorf("send a request: %w", err)
	}
	return nil
}

// settings takes over what the server allows. A new initial window counts for the
// stream from its beginning on, so that what is left may fall below zero.
func (w *wire) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
		w.onStream += int(v) - w.initial
		w.initial = int(v)
	}
	if v, ok := f.Value(http2.SettingMaxFrameSize); ok {
		w.maxFrame = int(v)
	}
	if err := w.framer.WriteSettingsAck(); err != nil {
		return fmt.Errorf("answer settings: %w", err)
	}
	return w.flush()
}

// widen takes over what the server allows more.
func (w *wire) widen(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		w.onConn += int(f.Increment)
	} else {
		w.onStream += int(f.Increment)
	}
	return w.flush()
}

// errStreamEnded is the error of a stream that the server ended as it may;
// errReset that of one which it broke off.
var (
	errStreamEnded = errors.New("the server has ended the stream")
	errReset       = errors.New("the server has reset the stream")
)

// receive returns the next message and its size on the wire. The bytes are
// valid until the next call.
func (w *wire) receive(got func(message []byte, size int) error) error {
	for {
		f, err := w.framer.ReadFrame()
		if err != nil {
			return fmt.Errorf("read a frame: %w", err)
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			if err := w.account(int(f.Length)); err != nil {
				return err
			}
			if err := w.data(f.Data(), got); err != nil {
				return err
			}
		case *http2.SettingsFrame:
			err = w.settings(f)
		case *http2.WindowUpdateFrame:
			err = w.widen(f)
		case *http2.PingFrame:
			if !f.IsAck() {
				err = w.framer.WritePing(true, f.Data)
			}
		case *http2.HeadersFrame:
			if f.StreamEnded() {
				return errStreamEnded
			}
		case *http2.RSTStreamFrame:
			return fmt.Errorf("%w: %v", errReset, f.ErrCode)
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return fmt.Errorf("%w: %v: %s", errReset, f.ErrCode, f.DebugData())
			}
			return fmt.Errorf("%w: going away: %s", errStreamEnded, f.DebugData())
		}
		if err != nil {
			return fmt.Errorf("answer a frame: %w", err)
		}
	}
}

// account gives the server more to send when half is used.
func (w *wire) account(n int) error {
	w.granted -= n
	if w.granted > window/2 {
		return nil
	}
	more := uint32(window - w.granted)
	w.granted = window
	if err := errors.Join(w.framer.WriteWindowUpdate(0, more), w.framer.WriteWindowUpdate(1, more)); err != nil {
		return fmt.Errorf("widen the window: %w", err)
	}
	return nil
}

// data takes apart what comes on the stream into messages.
func (w *wire) data(b []byte, got func([]byte, int) error) error {
	for len(b) > 0 {
		if w.left == 0 {
			n := min(5-len(w.prefix), len(b))
			w.prefix, b = append(w.prefix, b[:n]...), b[n:]
			if len(w.prefix) < 5 {
				return nil
			}
			w.left = int(binary.BigEndian.Uint32(w.prefix[1:]))
			w.size, w.prefix, w.kept = w.left, w.prefix[:0], w.kept[:0]
			w.head = w.head[:0]
			if w.left > 0 {
				continue
			}
		}
		n := min(w.left, len(b))
		w.keep(b[:n])
		w.left, b = w.left-n, b[n:]
		if w.left == 0 {
			if err := got(w.kept, w.size); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *wire) keep(b []byte) {
	if !w.endsOnly {
		w.kept = append(w.kept, b...)
		return
	}
	w.head = append(w.head, b[:min(headBytes-len(w.head), len(b))]...)
	if over := w.left - tailBytes; over > 0 {
		b = b[min(over, len(b)):]
	}
	w.kept = append(w.kept, b...)
}

func (w *wire) close() { _ = w.conn.Close() }

// ended reports whether an error is the ordinary end of a connection.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, errStreamEnded)
}
