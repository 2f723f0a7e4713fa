package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"sealift/internal/testservices"
	"sealift/storage"
	"sealift/storage/audit"
)

// stolen is a prefix that somebody else has claimed meanwhile. It is not looked at.
type stolen struct{ audit.Contents }

func (stolen) Claim(context.Context, string) (string, error) { return "another", nil }

func (stolen) EachContent(context.Context, func(storage.Uploaded, time.Time) error) error {
	panic("the sweep looks at another registry's content")
}

// Two registries that know nothing of each other cannot have one prefix of a bucket, also while
// there is nothing in it: each would sweep what the other one stores. The first server has it, and
// has it again after a restart.
func TestPrefixOfOneRegistry(t *testing.T) {
	for _, kind := range []string{"SQLite", "PostgreSQL"} {
		t.Run(kind, func(t *testing.T) {
			first, second := options(t.TempDir()), options(t.TempDir())
			first.Storage.Files = bucket(t)
			if kind == "PostgreSQL" {
				first.Storage.Registry = testservices.SharedPostgres(t)
			}
			second.Storage = first.Storage
			second.Storage.Registry = ""
			for range 2 {
				s, err := Open(t.Context(), first)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if s, err := Open(t.Context(), second); !errors.Is(err, errOthersPrefix) || Hint(err) == "" {
				t.Errorf("another registry: %v, %v", s, err)
			}
			s, err := Open(t.Context(), first)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.sweepOnce(t.Context(), stolen{s.store.(audit.Contents)}); !errors.Is(err, errOthersPrefix) {
				t.Errorf("a sweep in a prefix that is another's meanwhile: %v", err)
			}
		})
	}
}
