//go:build linux

package soak

import (
	"os"
	"path/filepath"
	"testing"

	"sealift/codec"
	"sealift/internal/testpeer"
)

// TestNames has clients use ids and names that are not theirs, or nearly so, while
// links that lead elsewhere lie where files go.
func TestNames(t *testing.T) {
	r := newRun(t)
	base := r.TempDir()
	dir, outside := filepath.Join(base, "server"), filepath.Join(base, "outside")
	for _, d := range []string{dir, outside} {
		if err := os.Mkdir(d, 0o700); err != nil {
			r.Fatalf("%v", err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "file"), []byte("untouched"), 0o600); err != nil {
		r.Fatalf("%v", err)
	}
	s := r.start(dir)
	victim := s.join("victim", 0)
	want := []stored{victim.mustUpload("precious", pattern(1, 5000), 1000)}
	thief := s.join("thief", 1)
	want = append(want, thief.mustUpload("own", pattern(2, 100), 100))
	victims := filepath.Join(dir, "files", victim.ID.String())
	before := r.tree(victims)

	asked := r.otherIDs(s, thief, victim)
	r.unchanged(victims, before)
	want = append(want, r.similarNames(s)...)
	planted := r.links(s, dir, outside, victims)

	// Everybody goes on.
	want = append(want, victim.mustUpload("later", pattern(3, 100), 100), thief.mustUpload("own", pattern(4, 200), 100))
	want = append(want[:1], want[2:]...) // the thief's first one has been replaced
	r.Logf("%d messages under another's id and %d uploads through planted links: all refused, nothing has changed", asked, planted)
	victim.close()
	thief.close()
	r.calm(s)
	r.checkStore(dir, want)
	s.finish()
}

// otherIDs has thief use the id of victim wherever it can, and returns how
// often.
func (r *run) otherIDs(s *server, thief, victim *peer) (asked int) {
	r.Helper()
	name := []byte("precious")
	content := pattern(5, 5000)
	verdict := func(code codec.Code) []byte { return codec.Verdict{Code: code, FileName: name}.Append(nil, victim.ID) }
	file := thief.File(string(name), content)
	file.ID = victim.ID
	key := codec.PublicKey{Name: []byte(victim.Name), Key: thief.Pair.Public[:]}.Append(nil, victim.ID)
	for _, b := range [][]byte{
		packet(file, 6000, 1), verdict(codec.CodeCRCOK), verdict(codec.CodeCRCBad), verdict(codec.CodeAbort), key,
		codec.Reconnect{Name: []byte(victim.Name)}.Append(nil, victim.ID),
	} {
		asked++
		if _, err := thief.Ask(b, codec.CodeError); err != nil {
			r.Errorf("another's id on a connection of its own: %v", err)
		}
	}
	// A connection of nobody's: the key is pinned, and reconnecting tells the key
	// to its owner only.
	p := s.mustDial()
	defer p.close()
	asked += 2
	if _, err := p.Ask(key, codec.CodeError); err != nil {
		r.Errorf("another key for the victim: %v", err)
	}
	if _, err := p.Ask(codec.Reconnect{Name: []byte(thief.Name)}.Append(nil, victim.ID), codec.CodeReconnectRejected); !testpeer.Refused(err, codec.CodeReconnectRejected) && err != nil {
		r.Errorf("the victim's id under another name: %v", err)
	}
	return asked
}

// similarNames are names that nearly agree.
func (r *run) similarNames(s *server) (want []stored) {
	r.Helper()
	upper, lower := s.join("Somebody", 2), s.join("somebody", 3)
	defer upper.close()
	defer lower.close()
	for i, name := range []string{"file", "File", "FILE"} {
		for k, p := range []*peer{upper, lower} {
			want = append(want, p.mustUpload(name, pattern(uint64(10+2*i+k), 300), 100))
		}
	}
	// What follows the null is not part of the name.
	content := pattern(20, 400)
	f := upper.File("file", content)
	leftovers := func(b []byte, at int) []byte {
		copy(b[at+len("file")+1:at+codec.NameSize], pattern(uint64(at), codec.NameSize))
		return b
	}
	for n := 1; n <= 5; n++ {
		b := packet(f, 100, n)
		if err := upper.Send(leftovers(b, codec.RequestHeaderSize+12)); err != nil {
			r.Fatalf("%v", err)
		}
	}
	err := upper.Received(f)
	if err == nil {
		b := codec.Verdict{Code: codec.CodeCRCOK, FileName: []byte("file")}.Append(nil, upper.ID)
		_, err = upper.Ask(leftovers(b, codec.RequestHeaderSize), codec.CodeAck)
	}
	if err != nil {
		r.Errorf("a name with something behind its null: %v", err)
	}
	want[0] = upper.stored("file", content)
	return want
}

// links plants links in a client's folder and has it upload through them. It
// returns how many uploads were refused.
func (r *run) links(s *server, dir, outside, victims string) (refusals int) {
	r.Helper()
	p := s.join("linked", 2)
	defer p.close()
	folder := filepath.Join(dir, "files", p.ID.String())
	if err := os.Mkdir(folder, 0o700); err != nil {
		r.Fatalf("%v", err)
	}
	for name, to := range map[string]string{
		"out": outside, "file": filepath.Join(outside, "file"), "new": filepath.Join(outside, "new"),
		"other": victims, "up": "..", "self": "self",
	} {
		if err := os.Symlink(to, filepath.Join(folder, name)); err != nil {
			r.Fatalf("%v", err)
		}
	}
	before, others, own := r.tree(outside), r.tree(victims), r.tree(folder)
	for _, name := range []string{
		"out/file", "out/new", "file", "new", "other/precious", "other/new", "up/x", "self", "self/x",
		"up/" + filepath.Base(victims) + "/precious",
	} {
		refusals++
		content := pattern(30, 100)
		err := p.upload(name, content, 100)
		if !hasRefused(err) {
			r.Errorf("%q, through a link: %v", name, err)
		}
		// The client gives up, and so nothing is left of it.
		abort := codec.Verdict{Code: codec.CodeAbort, FileName: []byte(name)}.Append(nil, p.ID)
		if _, err := p.Ask(abort, codec.CodeAck); err != nil {
			r.Errorf("giving %q up: %v", name, err)
		}
	}
	r.unchanged(outside, before)
	r.unchanged(victims, others)
	r.unchanged(folder, own)
	if err := os.RemoveAll(folder); err != nil {
		r.Errorf("%v", err)
	}
	return refusals
}
