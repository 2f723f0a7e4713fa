package client

import (
	"runtime"

	"sealift/crypto/aescbc"
)

// mixer encrypts for several transfers at once. CBC is serial within a file,
// and one file leaves most of a processor's AES units idle: four side by side
// take about the time of one. Whoever asks while a batch is being encrypted is
// in the next, so nobody waits for company.
type mixer struct {
	requests chan *mixRequest
	closed   chan struct{}
}

// mixRequest asks for whole blocks to be encrypted in place.
type mixRequest struct {
	enc  *aescbc.Encrypter
	b    []byte
	done chan struct{} // of one element
}

// maxMixed is the most transfers that are encrypted side by side.
const maxMixed = 8

// newMixer starts a mixer. It ends with close.
func newMixer() *mixer {
	m := &mixer{requests: make(chan *mixRequest, maxMixed), closed: make(chan struct{})}
	go m.run()
	return m
}

// close ends the mixer. A stream that still asks, after its transfer was given
// up, returns without having encrypted anything.
func (m *mixer) close() { close(m.closed) }

// stream returns a function that encrypts with enc, beside the streams of others.
// It may be called by one goroutine at a time.
func (m *mixer) stream(enc *aescbc.Encrypter) func(b []byte) {
	r := &mixRequest{enc: enc, done: make(chan struct{}, 1)}
	return func(b []byte) {
		r.b = b
		select {
		case m.requests <- r:
		case <-m.closed:
			return
		}
		select {
		case <-r.done:
		case <-m.closed:
		}
	}
}

func (m *mixer) run() {
	batch := make([]*mixRequest, 0, maxMixed)
	encs, bufs := make([]*aescbc.Encrypter, 0, maxMixed), make([][]byte, 0, maxMixed)
	for {
		select {
		case r := <-m.requests:
			batch = append(batch[:0], r)
		case <-m.closed:
			return
		}
		// The transfers of the batch before have just been let go. Let those that
		// have their next piece at hand ask, rather than meet this one in turns.
		runtime.Gosched()
		for len(batch) < maxMixed && len(m.requests) > 0 {
			batch = append(batch, <-m.requests)
		}
		encs, bufs = encs[:0], bufs[:0]
		for _, r := range batch {
			encs, bufs = append(encs, r.enc), append(bufs, r.b)
		}
		aescbc.EncryptStreams(encs, bufs, bufs)
		for _, r := range batch {
			r.done <- struct{}{}
		}
	}
}
