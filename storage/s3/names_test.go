package s3

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"sealift/internal/testservices"
	"sealift/storage"
)

var strangePaths = []string{
	"a", "a/b/c", "a b/ c ", " ", "+", "a+b&c=d?e#f", "%", "%%", "100%", "100%/50%", "%2F", "%2f", "a%41", "%25", "%/a", "%25%2F/%", "~", "a~b",
	"~kept-5", "a~00000000000000000000000000000000", "a~00000000000000000000000000000000~kept-5/b",
	"...", ".hidden", "-rf", "*", "'\"<>&;|`$(){}[]^", "ä", "a\u0308", "r\u00e9sum\u00e9/\u5c65\u6b74\u66f8 \U0001f600", "\ufffd", "\ufffe", "\u2028",
	strings.Repeat("n", 255), strings.Repeat("n", 160), strings.Repeat("%41", 85), strings.Repeat("%", 255), strings.Repeat("ä", 127), strings.Repeat("d/", 127) + "d",
	strings.Repeat("n", 200) + "/" + strings.Repeat("m", 54),
}

// Any path that a client can name is found again in the name of its object, and that is one
// that S3 servers take.
func TestNames(t *testing.T) {
	s := &Store{prefix: "some/folder/"}
	for _, path := range append(strangePaths, "\x01", "\x7f", "a\x00", "\xff\xfe", "a\xc3", "\u0085", "a\\b") {
		checkName(t, s, path)
	}
	for path, want := range map[string]string{"Documents/My file (1) 100%.pdf": "Documents/My file (1) 100%.pdf", "100%": "100%25", "%41": "%2541"} {
		if got := encodePath(path); got != want {
			t.Errorf("%q is written as %q, want %q", path, got, want)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, path := range strangePaths {
		f.Add(path)
	}
	s := &Store{}
	f.Fuzz(func(t *testing.T, path string) {
		if len(path) > 255 || strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.Contains(path, "//") || path == "" {
			t.Skip()
		}
		checkName(t, s, path)
	})
}

func checkName(t *testing.T, s *Store, path string) {
	t.Helper()
	name := encodePath(path)
	if got := decodePath(name); got != path {
		t.Errorf("%q is written as %q, which is read as %q", path, name, got)
	}
	up := storage.Uploaded{Place: storage.Place{ID: alice, Path: path}, Key: strings.Repeat("0a", keySize)}
	object := s.object(up.Place, up.Key)
	kept := keptObject(object, 1<<62)
	if !utf8.ValidString(object) || len(kept) > 1024-maxPrefix {
		t.Errorf("%q is the object %q of %d bytes", path, kept, len(kept))
	}
	for element := range strings.SplitSeq(kept, "/") {
		if len(element) > maxElement || element == "" || strings.ContainsFunc(element, func(r rune) bool { return r < 0x20 }) {
			t.Errorf("%q has the element %q of %d bytes in its object's name", path, element, len(element))
		}
	}
	if checkPlace(up.Place) != nil {
		return
	}
	if got, k, ok := s.parse(object); !ok || got != up || k.name != "" {
		t.Errorf("the object of %q is read as %+v, %v, %v", path, got, k, ok)
	}
	if got, k, ok := s.parse(kept); !ok || got != up || k.name != kept || k.length != 1<<62 {
		t.Errorf("what is kept of %q is read as %+v, %+v, %v", path, got, k, ok)
	}
}

// A name that is none of ours is not touched.
func TestOtherNames(t *testing.T) {
	s := &Store{prefix: "p/"}
	key := strings.Repeat("0", 32)
	for _, name := range []string{
		"", "p/", "p/readme.txt", "p/.sealift-01234567", "q/" + alice.String() + "/a~" + key, "p/" + alice.String() + "/a", "p/" + alice.String() + "/~" + key,
		"p/" + alice.String() + "/a~" + key[1:], "p/" + alice.String() + "/a~" + strings.ToUpper("a"+key[1:]), "p/" + alice.String() + "/a/../b~" + key,
		"p/" + alice.String() + "/a//b~" + key, "p/" + alice.String() + "/%41~" + key, "p/" + alice.String() + "/a~" + key + "~kept-x", "p/" + alice.String() + "/a~" + key + "~kept--1",
		"p/" + strings.ToUpper(alice.String()) + "/a~" + key,
	} {
		if up, _, ok := s.parse(name); ok {
			t.Errorf("%q is taken for %+v", name, up)
		}
	}
}

// The server takes the names, and a listing gives the paths back.
func TestNamesInBucket(t *testing.T) {
	b := testservices.S3(t)
	s := open(t, b, Options{PartSize: minPart})
	want := make(map[string]storage.Uploaded)
	for i, path := range strangePaths {
		if checkPlace(storage.Place{ID: alice, Path: path}) != nil {
			continue
		}
		data := content(byte(i), 100)
		u := create(t, s, path, data)
		if i%2 == 0 {
			was := u.flush(50).close() // which has a name of the other kind
			if up := each(t, s)[path]; up != was.up {
				t.Errorf("what was flushed of %q is listed as %+v, want %+v", path, up, was.up)
			}
			u = was.reopen(s, 50).write(data[50:])
			was.discard().nothingLeft()
		}
		u.complete(data).committed()
		want[path] = u.up
	}
	if len(want) < 30 {
		t.Errorf("only %d paths were tried", len(want))
	}
	got := each(t, s)
	for path, up := range want {
		if got[path] != up {
			t.Errorf("%q is listed as %+v, want %+v", path, got[path], up)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d paths are listed, want %d", len(got), len(want))
	}
}

// EachContent tells of all there is, over more than one page of a listing, and of what is no object yet. What it tells of can be discarded meanwhile.
func TestEachContent(t *testing.T) {
	b := testservices.S3(t)
	s := open(t, b, Options{PartSize: minPart})
	const files = 1010
	for i := range files {
		create(t, s, fmt.Sprintf("folder%d/file%d", i%7, i), []byte("x")).complete([]byte("x"))
	}
	flushed := create(t, s, "flushed", content(1, 10)).flush(10).close()
	parts := create(t, s, "parts", content(1, minPart+1))
	parts.parts()
	other := openAt(t, b.URL(s.url.Prefix+"-2"), b, Options{})
	create(t, other, "of another prefix", nil).complete(nil)

	all := each(t, s)
	if len(all) != files+2 || all["flushed"] != flushed.up || all["parts"] != parts.up {
		t.Errorf("%d files are listed, want %d; flushed %+v, in parts %+v", len(all), files+2, all["flushed"], all["parts"])
	}
	parts.close()
	for _, up := range all {
		if err := s.Discard(t.Context(), up); err != nil {
			t.Fatal(err)
		}
	}
	if left := each(t, s); len(left) > 0 {
		t.Errorf("%d files are left: %v", len(left), left)
	}
	if left := each(t, other); len(left) != 1 {
		t.Errorf("%d files of another prefix are left", len(left))
	}
}
