package client_test

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"sealift/client"
	"sealift/crypto/keys"
	"sealift/internal/fakeserver"
	"sealift/internal/infofile"
)

func keyText(t *testing.T, id client.Identity) string {
	t.Helper()
	der, err := keys.MarshalPrivate(id.Key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der) + "\n"
}

// A priv.key that is a copy of the key in me.info follows it when the client
// has to register anew; any other file of that name is left alone.
func TestPrivateKeyBesideMe(t *testing.T) {
	for _, isCopy := range []bool{true, false} {
		s, dir := fakeserver.New(t), t.TempDir()
		path, copyPath := filepath.Join(dir, infofile.MeName), filepath.Join(dir, infofile.PrivateKeyName)
		o := options(s)
		o.Identity = client.IdentityFile(path)
		old := login(t, o).Identity()
		if _, err := os.Stat(copyPath); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("priv.key was created: %v", err)
		}
		before := "something else\n"
		if isCopy {
			before = keyText(t, old)
		}
		if err := os.WriteFile(copyPath, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		s.ForgetClients()
		s.ForgetName(old.Name)
		now := login(t, o).Identity()
		if now.Key.Equal(old.Key) {
			t.Fatal("the key is the old one")
		}
		want := before
		if isCopy {
			want = keyText(t, now)
		}
		if got, err := os.ReadFile(copyPath); err != nil || string(got) != want {
			t.Errorf("copy %v: priv.key holds %q, %v", isCopy, got, err)
		}
		if me, err := infofile.ReadMe(path); err != nil || !me.Key.Equal(now.Key) || me.ID != now.ID {
			t.Errorf("me.info: %v", err)
		}
	}
}
