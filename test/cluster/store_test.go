//go:build linux

package cluster

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"sealift/codec"
	"sealift/crypto/cksum"
	"sealift/storage"
	"sealift/storage/postgres"
)

// rows is what the registry has.
type rows struct {
	files    []storage.File
	partials []storage.Partial
	leases   []storage.Lease
}

// keys are the keys that rows name, and whether as those of files.
func (r *rows) keys() map[string]bool {
	keys := make(map[string]bool)
	for _, p := range r.partials {
		keys[p.Incoming] = false
	}
	for _, f := range r.files {
		keys[f.Incoming] = true
	}
	return keys
}

func (c *cluster) rows() (all rows) {
	c.Helper()
	ctx := context.Background()
	reg, err := postgres.OpenReadOnly(ctx, c.registry, postgres.Options{})
	c.must("opening the registry", err)
	defer reg.Close()
	c.must("files", reg.Files(ctx, func(f storage.File) error {
		all.files = append(all.files, f)
		return nil
	}))
	c.must("partial files", reg.Partials(ctx, func(p storage.Partial) error {
		all.partials = append(all.partials, p)
		return nil
	}))
	c.must("leases", reg.EachLease(ctx, func(l storage.Lease) error {
		all.leases = append(all.leases, l)
		return nil
	}))
	return all
}

// object is what the bucket has of one key.
type object struct {
	name   string // of the content, "" if it is not complete
	size   int64
	others []string // what was flushed, and uploads in parts
}

// objects lists the bucket by itself, without package s3, which knows the names too: it
// goes by the key, which is behind the last ~.
func (c *cluster) objects() map[string]*object {
	c.Helper()
	ctx := context.Background()
	all := make(map[string]*object)
	of := func(name string) (o *object, flushed bool) {
		name, _, flushed = strings.Cut(name, "~kept-")
		_, key := name[:strings.LastIndexByte(name, '~')+1], name[strings.LastIndexByte(name, '~')+1:]
		if all[key] == nil {
			all[key] = new(object)
		}
		return all[key], flushed
	}
	s3 := services.s3.Client()
	for info := range s3.ListObjects(ctx, services.s3.Name, minio.ListObjectsOptions{Prefix: c.prefix + "/", Recursive: true}) {
		c.must("listing objects", info.Err)
		if info.Key == c.prefix+"/.sealift-registry" { // whose the prefix is
			continue
		}
		o, flushed := of(info.Key)
		if flushed {
			o.others = append(o.others, info.Key)
		} else {
			o.name, o.size = info.Key, info.Size
		}
	}
	for info := range s3.ListIncompleteUploads(ctx, services.s3.Name, c.prefix+"/", true) {
		c.must("listing uploads in parts", info.Err)
		o, _ := of(info.Key)
		o.others = append(o.others, info.Key+" in parts")
	}
	return all
}

// read sums an object.
func (c *cluster) read(o *object) (content, error) {
	in, err := services.s3.Client().GetObject(context.Background(), services.s3.Name, o.name, minio.GetObjectOptions{})
	if err != nil {
		return content{}, err
	}
	defer in.Close()
	h := cksum.New()
	n, err := io.Copy(h, in)
	return content{n, h.Sum32()}, err
}

// swept waits until the servers have removed what no row has. Nobody may be uploading.
func (c *cluster) swept() {
	c.Helper()
	var left []string
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		left = nil
		there := c.objects() // before the rows: what is recorded meanwhile has its object
		all := c.rows()
		keys := all.keys()
		for key, o := range there {
			if _, ok := keys[key]; !ok {
				left = append(left, o.name)
				left = append(left, o.others...)
			}
		}
		if len(left) == 0 && len(all.leases) == 0 {
			return
		}
		if time.Now().After(deadline) {
			c.Errorf("after the sweep %d objects have no row, and there are %d leases: %q", len(left), len(all.leases), left[:min(len(left), 20)])
			return
		}
	}
}

// keeps asserts that what clients were promised is there, and no row without content.
func (c *cluster) keeps(p *promises) {
	c.Helper()
	all, there := c.rows(), c.objects()
	good := make(map[place]content)
	for _, f := range all.files {
		o := there[f.Incoming]
		if o == nil || o.name == "" {
			c.Errorf("%s (verified: %t) is recorded, and there is no object", f.PathName(), f.Verified)
			continue
		}
		got, err := c.read(o)
		if want := (content{f.Size, f.Cksum}); err != nil || got != want {
			c.Errorf("%s (verified: %t) is recorded as %v, and is %v, %v", f.PathName(), f.Verified, want, got, err)
		}
		if !f.Verified {
			continue
		}
		if f.Missing {
			c.Errorf("%s is marked as missing", f.PathName())
		}
		at := place{f.ID, f.Path}
		if _, twice := good[at]; twice {
			c.Errorf("%s is recorded twice", f.PathName())
		}
		good[at] = got
	}
	for _, f := range all.partials {
		if o := there[f.Incoming]; f.Length > 0 && o == nil {
			c.Errorf("of %v/%s %d bytes are recorded, and there is nothing", f.ID, f.Path, f.Length)
		}
	}
	for at, want := range p.kept {
		got, ok := good[at]
		switch {
		case !ok:
			c.Errorf("%v/%s got its 1604 and is not there", at.id, at.path)
		case got != want && !p.maybe[at][got]:
			c.Errorf("%v/%s is neither what got its 1604 last nor what was sent since", at.id, at.path)
		}
	}
	for at, got := range good {
		if _, ok := p.kept[at]; !ok && !p.maybe[at][got] {
			c.Errorf("%v/%s is verified, and no client has sent that", at.id, at.path)
		}
	}
	c.Logf("%d files are verified, %d got their 1604; %d wait for a verdict, %d are partial; %d objects", len(good), len(p.kept), len(all.files)-len(good), len(all.partials), len(there))
}

// anotherSweep returns a function that reports whether a sweep has come by since: it puts
// an object into the bucket that nothing knows of.
func (c *cluster) anotherSweep() func() bool {
	c.Helper()
	var id codec.ClientID
	key := fmt.Sprintf("%032x", c.rng.Uint64())
	name := fmt.Sprintf("%s/%v/stray~%s", c.prefix, id, key)
	_, err := services.s3.Client().PutObject(context.Background(), services.s3.Name, name, strings.NewReader("stray"), 5, minio.PutObjectOptions{})
	c.must("putting an object that nobody knows", err)
	return func() bool { return c.objects()[key] == nil }
}
