package file

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// state is what is known of one file. Owned by the store.
type state struct {
	path string // relative to the directory
	// info is that of the last reading; nil asks for another.
	info os.FileInfo
	hash [sha256.Size]byte
	// entries are the last good ones, in the order of the file. Of those with
	// an error, identified ones are among them too.
	entries []*object.Entry
	// errors of the last reading.
	errors []*object.Error
	// parsed is whether the file could ever be parsed, broken whether the last
	// reading could not, atStart whether it was there at the first load.
	parsed, broken, atStart bool
}

// outcome of looking at a file.
type outcome uint8

const (
	same outcome = iota
	changed
	// unsettled is for a file that may be half-written: look again later.
	unsettled
)

// refresh reads the file again, unless it is as it was.
func (st *state) refresh(f found, name string, cfg Config, first bool) outcome {
	if st.info != nil && os.SameFile(st.info, f.info) && st.info.Size() == f.info.Size() && st.info.ModTime().Equal(f.info.ModTime()) {
		return same
	}
	data, info, err := read(f.real)
	if err != nil {
		return st.fail(err, name)
	}
	if !first && info.Size() != int64(len(data)) && len(data) <= object.MaxFile {
		return unsettled // it was written to while we read
	}
	hash := sha256.Sum256(data)
	if st.parsed && !st.broken && hash == st.hash {
		st.info = info
		return same
	}
	decoded := object.DecodeAll(name, data, cfg.Options)
	suspect := decoded.Unreadable != nil || (len(decoded.Entries) == 0 && len(st.entries) > 0)
	if suspect && !first && !st.broken {
		if age := time.Since(info.ModTime()); age >= 0 && age < cfg.Patience {
			return unsettled
		}
	}
	st.info, st.hash, st.errors = info, hash, decoded.Errors()
	st.broken = decoded.Unreadable != nil
	if st.broken {
		return changed
	}
	st.parsed = true
	st.entries = carry(st.entries, decoded.Entries, cfg.Options.Source)
	return changed
}

// fail notes that the file cannot be read; what it had stays.
func (st *state) fail(err error, name string) outcome {
	message := "cannot be read: " + err.Error()
	st.info = nil
	if st.broken && len(st.errors) == 1 && st.errors[0].Message == message {
		return same
	}
	st.broken = true
	st.errors = []*object.Error{{File: name, Message: message}}
	return changed
}

// carry returns the entries of a new reading, and of the old those that are
// missing in it but may be what a document without a readable identity was
// meant to be: such a document is no wish to remove them.
func carry(old, now []*object.Entry, source string) []*object.Entry {
	var out, nameless []*object.Entry
	for _, e := range now {
		if e.Identified {
			out = append(out, e)
		} else {
			nameless = append(nameless, e)
		}
	}
	if len(nameless) == 0 {
		return out
	}
	have := make(map[tenancy.Ref]bool, len(out))
	for _, e := range out {
		have[e.Ref(source)] = true
	}
	for _, e := range old {
		ref := e.Ref(source)
		for _, n := range nameless {
			if !have[ref] && n.MayBe(ref) {
				have[ref] = true
				kept := *e
				kept.Errors = nil
				out = append(out, &kept)
			}
		}
	}
	return out
}

// read returns the content of a file, up to one byte more than it may have.
func read(real string) ([]byte, os.FileInfo, error) {
	// Not to wait for the other end should it be a pipe by now.
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, object.MaxFile+1))
	if err != nil {
		return nil, nil, err
	}
	return data, info, nil
}
