package server

import (
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sealift/session"
)

// other changes each setting to a value that is good, and says how it reads then.
var other = map[string]struct {
	change func(*Options)
	to     string
}{
	"dir":                        {func(o *Options) { o.Dir = "/elsewhere" }, "/elsewhere"},
	"file-mode":                  {func(o *Options) { o.Storage.FileMode = 0o640 }, "0640"},
	"dir-mode":                   {func(o *Options) { o.Storage.DirMode = 0o750 }, "0750"},
	"listen":                     {func(o *Options) { o.Network.Listen = ":1" }, ":1"},
	"admin":                      {func(o *Options) { o.Admin.Listen = "127.0.0.1:1" }, "127.0.0.1:1"},
	"admin-token-file":           {func(o *Options) { o.Admin.Listen, o.Admin.TokenFile = "127.0.0.1:1", "token" }, "token"},
	"admin-host":                 {func(o *Options) { o.Admin.Listen, o.Admin.Hosts = "127.0.0.1:1", []string{"a", "b"} }, "a,b"},
	"tls":                        {func(o *Options) { o.TLS.Mode = tlsAllow }, "allow"},
	"tls-cert":                   {func(o *Options) { o.TLS.Mode, o.TLS.Cert, o.TLS.Key = tlsAllow, "cert", "key" }, "cert"},
	"tls-key":                    {func(o *Options) { o.TLS.Mode, o.TLS.Cert, o.TLS.Key = tlsAllow, "cert", "key" }, "key"},
	"tls-clients":                {func(o *Options) { o.TLS.Clients = clientsAny }, "any"},
	"tls-client-ca":              {func(o *Options) { o.TLS = TLS{Mode: tlsRequire, Clients: clientsCA, ClientCA: "ca"} }, "ca"},
	"registry":                   {func(o *Options) { o.Storage.Registry = registryMemory }, "memory"},
	"files":                      {func(o *Options) { o.Storage.Files = "s3://bucket/x" }, "s3://bucket/x"},
	"fsync":                      {func(o *Options) { o.Storage.Fsync = true }, "on"},
	"key-policy":                 {func(o *Options) { o.Sessions.ReplaceKeys = true }, "replace"},
	"registration":               {func(o *Options) { o.Sessions.Closed = true }, "closed"},
	"max-connections":            {func(o *Options) { o.Network.MaxConnections = 7 }, "7"},
	"max-connections-per-ip":     {func(o *Options) { o.Network.MaxPerIP = 6 }, "6"},
	"proxy-protocol":             {func(o *Options) { o.Network.ProxyProtocol = true }, "true"},
	"trusted-proxies":            {func(o *Options) { o.Network.TrustedProxies = []string{"10.0.0.0/8", "::1"} }, "10.0.0.0/8,::1"},
	"register-rate":              {func(o *Options) { o.Sessions.RegisterRate = 2.5 }, "2.5"},
	"max-uploads-per-connection": {func(o *Options) { o.Sessions.MaxUploads = 5 }, "5"},
	"max-file-size":              {func(o *Options) { o.Sessions.MaxFileSize = 3 << 20 }, "3MiB"},
	"max-unverified":             {func(o *Options) { o.Sessions.MaxUnverified = 1025 }, "1025"},
	"quota-bytes":                {func(o *Options) { o.Sessions.QuotaBytes = 5 << 30 }, "5GiB"},
	"quota-files":                {func(o *Options) { o.Sessions.QuotaFiles = 9 }, "9"},
	"limit-rate":                 {func(o *Options) { o.Network.LimitRate = 1 << 20 }, "1MiB"},
	"keep-for":                   {func(o *Options) { o.Storage.KeepFor = time.Hour }, "1h0m0s"},
	"min-free":                   {func(o *Options) { o.Storage.MinFree = 1 << 30 }, "1GiB"},
	"memory-budget":              {func(o *Options) { o.Machine.MemoryBudget = 1 << 40 }, "1TiB"},
	"handshake-timeout":          {func(o *Options) { o.Network.HandshakeTimeout = 3 * time.Second }, "3s"},
	"idle-timeout":               {func(o *Options) { o.Network.IdleTimeout = 4 * time.Minute }, "4m0s"},
	"drain-timeout":              {func(o *Options) { o.Network.DrainTimeout = time.Minute }, "1m0s"},
	"unverified-ttl":             {func(o *Options) { o.Storage.UnverifiedTTL = time.Hour }, "1h0m0s"},
	"partial-ttl":                {func(o *Options) { o.Storage.PartialTTL = 2 * time.Hour }, "2h0m0s"},
	"partial-budget":             {func(o *Options) { o.Storage.PartialBudget = 5 << 30 }, "5GiB"},
	"workers":                    {func(o *Options) { o.Machine.Workers = 3 }, "3"},
	"loops":                      {func(o *Options) { o.Machine.Loops = 2 }, "2"},
	"on-event":                   {func(o *Options) { o.Events.Command = "x 'y z'" }, "x 'y z'"},
	"event-url":                  {func(o *Options) { o.Events.URL = "http://x" }, "http://x"},
	"event-secret-file":          {func(o *Options) { o.Events.URL, o.Events.SecretFile = "http://x", "secret" }, "secret"},
	"event-ttl":                  {func(o *Options) { o.Events.TTL = 5 * time.Hour }, "5h0m0s"},
	"event-max":                  {func(o *Options) { o.Events.Max = 8 }, "8"},
	"event-retry":                {func(o *Options) { o.Events.Retry = 6 * time.Second }, "6s"},
	"event-timeout":              {func(o *Options) { o.Events.Timeout = 7 * time.Second }, "7s"},
	"event-parallel":             {func(o *Options) { o.Events.Parallel = 9 }, "9"},
	"fault":                      {func(o *Options) { o.Sessions.Faults = "crc=1" }, "crc=1"},
}

// Each setting that is changed is taken up, or named as one that needs a restart, with
// what it was and is. What was taken up is not told again, and what was not, is.
func TestApplyNamesEachSetting(t *testing.T) {
	if got, want := slices.Sorted(maps.Keys(other)), slices.Sorted(maps.Keys(Settings())); !slices.Equal(got, want) {
		t.Fatalf("tested are %v, settings %v", got, want)
	}
	for flag, o := range other {
		t.Run(flag, func(t *testing.T) {
			base := options(t.TempDir())
			base.Network.TrustedProxies = []string{"192.0.2.1"} // without which there is no --proxy-protocol
			s := open(t, base)
			next := base
			o.change(&next)
			for round := range 2 {
				changed, restart, err := s.Apply(next)
				if err != nil {
					t.Fatal(err)
				}
				all := changed
				if !Settings()[flag] {
					all = restart
				} else if len(restart) > 0 || len(changed) != 1-round {
					t.Errorf("round %d: changed %v, needs a restart %v", round, changed, restart)
				}
				i := slices.IndexFunc(all, func(c Change) bool { return c.Setting == flag })
				switch {
				case i < 0 && Settings()[flag] && round == 1:
				case i < 0:
					t.Errorf("round %d: changed %v, needs a restart %v", round, changed, restart)
				case all[i].To != o.to || all[i].From == o.to:
					t.Errorf("%+v, want it to become %s", all[i], o.to)
				}
			}
			if changed, restart, err := s.Apply(base); err != nil || len(restart) > 0 || (len(changed) == 1) != Settings()[flag] {
				t.Errorf("back again: changed %v, needs a restart %v, %v", changed, restart, err)
			}
		})
	}
}

// That another URL needs a restart is told without what may be secret in it, also where
// nothing else has changed.
func TestNoSecretOfAURLIsTold(t *testing.T) {
	base := options(t.TempDir())
	base.Events.URL = "https://user:one@127.0.0.1:9/hook/two?three"
	s := open(t, base)
	next := base
	next.Events.URL = "https://user:four@127.0.0.1:9/hook/two?three"
	_, restart, err := s.Apply(next)
	if err != nil {
		t.Fatal(err)
	}
	const told = "https://127.0.0.1:9/…"
	if want := []Change{{"event-url", told, told}}; !slices.Equal(restart, want) {
		t.Errorf("%v, want %v", restart, want)
	}
}

// Every option that a flag may set is in one setting, and no two are in the same.
func TestEveryOptionIsASetting(t *testing.T) {
	var o Options
	reached := map[string]bool{}
	for _, part := range []string{"Network", "TLS", "Sessions", "Storage", "Machine", "Admin", "Events"} {
		in, _ := reflect.TypeOf(o).FieldByName(part)
		for i := range in.Type.NumField() {
			field := in.Type.Field(i)
			if field.Name == "Listener" { // which no flag sets
				continue
			}
			var with Options
			v := reflect.ValueOf(&with).Elem().FieldByName(part).Field(i)
			switch v.Kind() {
			case reflect.String:
				v.SetString("x")
			case reflect.Bool:
				v.SetBool(true)
			case reflect.Int, reflect.Int64:
				v.SetInt(77)
			case reflect.Uint32:
				v.SetUint(0o777)
			case reflect.Slice:
				v.Set(reflect.ValueOf([]string{"x"}))
			case reflect.Float64:
				v.SetFloat(7)
			default:
				t.Fatalf("%s.%s is a %v", part, field.Name, v.Kind())
			}
			var found []string
			for _, a := range settings {
				if a.text(&with) != a.text(&o) {
					found = append(found, a.flag)
				}
			}
			if len(found) != 1 || reached[found[0]] {
				t.Errorf("%s.%s is in the settings %v", part, field.Name, found)
				continue
			}
			reached[found[0]] = true
		}
	}
	if len(reached)+1 != len(settings) { // and dir
		t.Errorf("%d settings are reached, of %d", len(reached)+1, len(settings))
	}
}

// After an error nothing has changed, be it about what is new, or about what that has
// with what stays.
func TestApplyOfWhatIsWrong(t *testing.T) {
	base := options(t.TempDir())
	s := open(t, base)
	next := base
	next.Sessions.MaxFileSize, next.Storage.UnverifiedTTL = 1, time.Second
	if _, _, err := s.Apply(next); err == nil || !strings.HasPrefix(err.Error(), "--unverified-ttl 1s is too short") {
		t.Errorf("%v", err)
	}
	if changed, restart, err := s.Apply(base); err != nil || len(changed)+len(restart) > 0 {
		t.Errorf("afterwards: %v, %v, %v", changed, restart, err)
	}
}

// More connections than there are descriptors for are not taken, and the log says so.
func TestApplyOfManyConnections(t *testing.T) {
	core, logged := observer.New(zap.WarnLevel)
	base := options(t.TempDir())
	base.Log = zap.New(core)
	s := open(t, base)
	s.share.Most = 500
	next := base
	for asked, want := range map[int]int{0: 500, 499: 499, 501: 500, math.MaxInt: 500} {
		next.Network.MaxConnections = asked
		if got := s.connections(&next.Network); got != want {
			t.Errorf("asked for %d: %d, want %d", asked, got, want)
		}
		if n := len(logged.TakeAll()); (n == 1) != (asked > 500) {
			t.Errorf("asked for %d: %d warnings", asked, n)
		}
	}
}

// A setting that may change while the server runs is in what take hands to the parts.
func TestLiveSettingsReachAPart(t *testing.T) {
	s := open(t, options(t.TempDir()))
	parts := func(o *Options) any {
		return [...]any{
			loopLimits(&o.Network, s.connections(&o.Network)), sessionLimits(&o.Sessions),
			o.Storage.MinFree, o.Storage.UnverifiedTTL, o.Storage.PartialTTL, o.Storage.PartialBudget, o.Storage.KeepFor, o.Events.limits(),
		}
	}
	for flag, live := range Settings() {
		before := s.o
		switch flag { // each of the two has an effect beside the other
		case "proxy-protocol":
			before.Network.TrustedProxies = []string{"192.0.2.1"}
		case "trusted-proxies":
			before.Network.ProxyProtocol = true
		}
		after := before
		other[flag].change(&after)
		if got := !reflect.DeepEqual(parts(&before), parts(&after)); got != live {
			t.Errorf("%s may change while the server runs: %v; reaches a part: %v", flag, live, got)
		}
	}
}

// What is taken up has its effect at once: here on what the server looks at itself.
func TestApplyHasAnEffect(t *testing.T) {
	base := options(t.TempDir())
	s := open(t, base)
	next := base
	next.Storage.UnverifiedTTL = 2 * session.MinUnverifiedTTL
	next.Storage.PartialTTL, next.Storage.PartialBudget = time.Minute, 7
	if _, _, err := s.Apply(next); err != nil {
		t.Fatal(err)
	}
	if got := s.auditOptions(time.Now()).UnverifiedTTL; got != 2*session.MinUnverifiedTTL {
		t.Errorf("unverified files stay for %v", got)
	}
	if got := s.partialOptions(time.Now()); got.TTL != time.Minute || got.Budget != 7 {
		t.Errorf("partial files stay for %v, of %d bytes", got.TTL, got.Budget)
	}
}
