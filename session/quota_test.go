package session_test

import (
	"fmt"
	"strings"
	"testing"

	"sealift/session"
	"sealift/storage"
)

// With a quota, the first packet of a file that would go beyond it gets the 1607: the
// transfers under way on other connections of the client count.
func TestQuotaAtTheFirstPacket(t *testing.T) {
	w := newWorld(t, session.Config{Limits: session.Limits{Quota: storage.Quota{Bytes: 10_000, Files: 3}}})
	if err := w.reg.Registry.SetTargets(t.Context(), []string{"test"}); err != nil {
		t.Fatal(err)
	}
	p, c := w.login("alice")
	big := p.packets(spec, "big", random(1, 6000), 1008)
	c.ask(big[0])
	other := w.dial()
	q := *p
	step := func(what string, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %q, want %q", what, got, want)
		}
	}
	step("too much beside what is under way", other.ask(q.packets(spec, "more", random(2, 4001), 1008)[0]), "1607")
	step("the same name once more", other.ask(q.packets(spec, "big", random(3, 6000), 1008)...)[:4], "1603")
	step("its verdict", other.ask(q.ok("big")), "1604")
	step("the first one in its place", c.ask(big[1:]...)[:4], "1603")
	step("a file that fits", other.ask(q.packets(spec, "more", random(2, 4000), 1008)...)[:4], "1603")
	step("one of as many bytes in the place of the verified one", other.ask(q.packets(spec, "big", random(4, 6000), 1008)...)[:4], "1603")
	step("an empty file", other.ask(q.packets(single, "empty", nil, 0)...)[:4], "1603")
	step("a fourth", other.ask(q.packets(single, "fourth", nil, 0)...), "1607")
	w.hangUp()
	if n := w.svc.Counts().Refused[session.ReasonQuota]; n != 2 {
		t.Errorf("%d refusals, want 2", n)
	}
	var told []storage.Event
	err := w.reg.Registry.ListEvents(t.Context(), func(e storage.Event) error {
		if e.Kind == storage.EventQuota {
			told = append(told, e)
		}
		return nil
	})
	if err != nil || len(told) != 1 || told[0].Client != p.id || told[0].Path != "more" || told[0].Size != 4001 {
		t.Errorf("%v, told is %+v, want the first refusal", err, told)
	}
}

// What a transfer has booked is free again when the transfer ends, however it does.
func TestQuotaIsGivenBack(t *testing.T) {
	w := newWorld(t, session.Config{Limits: session.Limits{Quota: storage.Quota{Bytes: 6000}}})
	p, c := w.login("alice")
	begin := func(name string) {
		t.Helper()
		if got := c.ask(p.packets(spec, name, random(1, 5000), 1008)[0]); got != "" {
			t.Fatalf("%s: %q", name, got)
		}
	}
	begin("given up")
	if got := c.ask(p.verdict(1031, "given up")); got != "1604" {
		t.Fatal(got)
	}
	begin("cut off")
	w.hangUp()
	c = w.dial()
	begin("whole")
	if got := c.ask(p.packets(spec, "whole", random(1, 5000), 1008)...); !strings.HasPrefix(got, "1603") {
		t.Fatal(got)
	}
	if got := c.ask(p.verdict(1031, "whole")); got != "1604" {
		t.Fatal(got)
	}
	begin("last")
}

// A quota of a client's own is learnt at a 1027, from Recheck, and where neither came, from
// the first file that the registry refuses.
func TestOwnQuota(t *testing.T) {
	five, any := int64(5000), int64(0)
	for _, how := range []string{"1027", "recheck", "1026"} {
		w := newWorld(t, session.Config{})
		p, c := w.login("alice")
		set := &storage.SetQuota{Outcome: storage.Outcome{By: storage.Server}, ID: p.id, Bytes: &five, Files: &any}
		w.must(set)
		early := true
		switch how {
		case "1027":
			if got := c.ask(p.reconnect()); got != "1605" {
				t.Fatal(got)
			}
			priv, _ := pair[0]()
			p.key = c.aesKey(t, priv)
			c.replies, c.raw = nil, nil
		case "recheck":
			w.recheck()
		default:
			early = false
		}
		for i := range 2 {
			packets := p.packets(spec, fmt.Sprint("f", i), random(1, 5001), 1008)
			first, rest := c.ask(packets[0]), c.ask(packets[1:]...)
			if first+rest != "1607" || (first == "1607") != early {
				t.Errorf("%s: file %d gets %q, and then %q", how, i, first, rest)
			}
			early = true
		}
		w.hangUp()
	}
}
