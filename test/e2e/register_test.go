//go:build unix

package e2e

import (
	"fmt"
	"testing"

	"sealift/codec"
)

// Clients that register one name at the same instant: one of them gets it.
func TestOneNameAtTheSameInstant(t *testing.T) {
	d := serve(t)
	for _, contest := range []struct{ clients, rounds int }{{2, 200}, {16, 20}} {
		peers := make([]*peer, contest.clients)
		for round := range contest.rounds {
			name := fmt.Sprintf("%d clients, round %d", contest.clients, round)
			for i := range peers {
				if peers[i] == nil || !peers[i].ID.IsZero() {
					peers[i] = connect(t, d, "")
				}
				peers[i].Name = name
			}
			type answer struct {
				code    codec.Code
				payload []byte
				err     error
			}
			start := make(chan struct{})
			answers := make([]chan answer, len(peers))
			for i, p := range peers {
				answers[i] = make(chan answer, 1)
				msg := p.Register()
				go func() {
					<-start
					if err := p.Send(msg); err != nil {
						answers[i] <- answer{err: err}
						return
					}
					code, payload, err := p.Read()
					answers[i] <- answer{code, payload, err}
				}()
			}
			close(start)
			var codes []codec.Code
			registered := 0
			for i, p := range peers {
				a := <-answers[i]
				if a.err != nil {
					t.Fatal(a.err)
				}
				codes = append(codes, a.code)
				switch a.code {
				case codec.CodeRegistered:
					registered++
					p.ID = codec.ClientID(a.payload)
				case codec.CodeRegisterFailed:
				default:
					t.Fatalf("a %v", a.code)
				}
			}
			if registered != 1 {
				t.Fatalf("%s: %v, want one 1600", name, codes)
			}
		}
		// The winner's id is in use, the losers' connections are as good as new.
		for _, p := range peers {
			if p.ID.IsZero() {
				p.Name += " again " + p.Net.LocalAddr().String()
				p.signUp()
			}
			p.exchange()
			p.upload("file", []byte("content"))
		}
	}
	names := map[string]bool{}
	for _, c := range d.clients() {
		if names[c.Name] {
			t.Errorf("%q is registered twice", c.Name)
		}
		names[c.Name] = true
	}
}
