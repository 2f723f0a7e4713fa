package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sealift/internal/infofile"
	"sealift/storage"
)

// A sweep removes content of which its registry knows nothing. Two registries with one prefix of a
// bucket would remove each other's. So the prefix names its registry, from the first server on,
// and no other one serves it, or sweeps it.

// errOthersPrefix is a prefix of another registry.
var errOthersPrefix = errors.New("the prefix belongs to another registry")

// claimable is a bucket, or a part of it, that can have an owner.
type claimable interface {
	Claim(ctx context.Context, owner string) (whose string, err error)
}

// claim makes store that of the registry, or returns a hinted errOthersPrefix. dir is the server's
// directory, and url what names store.
func claim(ctx context.Context, reg storage.Registry, store claimable, dir, url string) error {
	name, err := ownName(ctx, reg, dir)
	if err != nil {
		return err
	}
	whose, err := store.Claim(ctx, name)
	if err != nil {
		return fmt.Errorf("--files: %w", err)
	}
	if whose != name {
		return &Hinted{
			Err: fmt.Errorf("--files %s: %w", storeTold(url), errOthersPrefix),
			Hint: "Name another prefix, or the registry that goes with this one: what its records do not name would be removed. " +
				"If nothing uses the prefix any more, remove the object .sealift-registry in it.",
		}
	}
	return nil
}

// registryNameFile is the file in the server's directory with the name of the registry beside it.
const registryNameFile = "registry.name"

// ownName is a name for the registry that no other has. A database in the directory has it in a
// file beside it.
func ownName(ctx context.Context, reg storage.Registry, dir string) (string, error) {
	if _, ok := reg.(storage.Secrets); ok {
		return registryName(ctx, reg)
	}
	path := filepath.Join(dir, registryNameFile)
	text, err := os.ReadFile(path)
	switch name := strings.TrimSpace(string(text)); {
	case err == nil && name != "":
		return name, nil
	case err == nil:
		return "", fmt.Errorf("%s: the file is empty, want the name of a registry", path)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	name := rand.Text()
	return name, infofile.Replace(path, []byte(name+"\n"), 0o600)
}
