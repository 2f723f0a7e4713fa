package eventloop

import (
	"bytes"
	"context"
	"testing"
	"time"
)

// seen waits until what Observe says is so.
func (r *running) seen(what string, q Query, so func(Observation) bool) Observation {
	r.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; <-tick.C {
		found, err := r.Observe(r.t.Context(), q)
		if err != nil {
			r.t.Fatal(err)
		}
		if so(found) {
			return found
		}
		if time.Now().After(end) {
			r.t.Fatalf("in vain: %s: %+v", what, found)
		}
	}
}

// What is under way can be seen, also while a worker has it, and ended.
func TestObserve(t *testing.T) {
	g := &gate{}
	r := start(t, gated(g))
	c, idle := r.client("uploader"), r.client("idle")
	defer idle.Close()
	defer c.Close()
	content := random(1 << 20)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Send(context.Background(), "dir/f", bytes.NewReader(content), int64(len(content)))
		sent <- err
	}()
	<-g.reached
	id := c.Identity().ID
	found := r.seen("both are there", Query{Most: 9}, func(o Observation) bool { return o.Connections == 2 })
	if found.Transfers != 1 || len(found.Views) != 2 {
		t.Fatalf("%+v", found)
	}
	// The one that uploads comes first, though the other came later.
	v := found.Views[0]
	if v.Name != "uploader" || v.ID != id || v.Opened.IsZero() || v.TLS != overTLS || len(v.Transfers) != 1 || found.Views[1].Name != "idle" || len(found.Views[1].Transfers) != 0 {
		t.Fatalf("%+v", found.Views)
	}
	if f := v.Transfers[0]; f.File != "dir/f" || f.Total != int64(len(content)) || f.Bytes < 0 || f.Bytes > f.Total {
		t.Errorf("%+v", f)
	}
	if few := r.seen("one", Query{Most: 1}, func(o Observation) bool { return len(o.Views) == 1 }); few.Connections != 2 || few.Views[0].Name != "uploader" {
		t.Errorf("%+v", few)
	}
	if other := r.seen("the idle one", Query{Most: 9, Client: idle.Identity().ID}, func(o Observation) bool { return len(o.Views) == 1 }); other.Connections != 1 || other.Views[0].Name != "idle" {
		t.Errorf("%+v", other)
	}
	if there, err := r.EndConnection(t.Context(), v.Remote, v.Opened.Add(1)); there || err != nil {
		t.Errorf("a connection of another time: %v, %v", there, err)
	}
	if there, err := r.EndConnection(t.Context(), v.Remote, v.Opened); !there || err != nil {
		t.Errorf("%v, %v", there, err)
	}
	close(g.open)
	r.eventually("it is cut", func(Stats) bool {
		for _, line := range r.logs.FilterMessage("connection closed").All() {
			if line.ContextMap()["reason"] == "ended by the operator" {
				return true
			}
		}
		return false
	})
	if err := <-sent; err == nil {
		t.Error("the upload went well")
	}
}
