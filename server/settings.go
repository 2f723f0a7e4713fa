package server

import (
	"cmp"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sealift/storage/files"
)

// setting is an option that a flag sets. [Server.Apply] goes by it.
type setting struct {
	flag string
	// live says that it may change while the server runs; the others need a restart.
	live bool
	// text is its value as the flag takes it.
	text func(*Options) string
	// shown makes of text what people are told; nil: all of it.
	shown func(text string) string
	take  func(to, from *Options)
}

// settings are all of them. One that is live also has to reach the part that goes by it,
// in [Server.take].
var settings = []setting{
	fixed("dir", func(o *Options) *string { return &o.Dir }),
	fixed("file-mode", func(o *Options) *fs.FileMode { return &o.Storage.FileMode }, modeText(files.DefaultFileMode)),
	fixed("dir-mode", func(o *Options) *fs.FileMode { return &o.Storage.DirMode }, modeText(files.DefaultDirMode)),
	fixed("listen", func(o *Options) *string { return &o.Network.Listen }),
	fixed("tls", func(o *Options) *string { return &o.TLS.Mode }),
	fixed("tls-cert", func(o *Options) *string { return &o.TLS.Cert }),
	fixed("tls-key", func(o *Options) *string { return &o.TLS.Key }),
	fixed("tls-clients", func(o *Options) *string { return &o.TLS.Clients }),
	fixed("tls-client-ca", func(o *Options) *string { return &o.TLS.ClientCA }),
	fixed("registry", func(o *Options) *string { return &o.Storage.Registry }).told(storeTold),
	fixed("files", func(o *Options) *string { return &o.Storage.Files }).told(storeTold),
	fixed("fsync", func(o *Options) *bool { return &o.Storage.Fsync }, words("off", "on")),
	live("key-policy", func(o *Options) *bool { return &o.Sessions.ReplaceKeys }, words("pin", "replace")),
	live("registration", func(o *Options) *bool { return &o.Sessions.Closed }, words("open", "closed")),
	live("max-connections", func(o *Options) *int { return &o.Network.MaxConnections }),
	live("max-connections-per-ip", func(o *Options) *int { return &o.Network.MaxPerIP }),
	live("proxy-protocol", func(o *Options) *bool { return &o.Network.ProxyProtocol }),
	live("trusted-proxies", func(o *Options) *[]string { return &o.Network.TrustedProxies }, func(all []string) string { return strings.Join(all, ",") }),
	live("register-rate", func(o *Options) *float64 { return &o.Sessions.RegisterRate }),
	live("max-uploads-per-connection", func(o *Options) *int { return &o.Sessions.MaxUploads }),
	live("max-file-size", func(o *Options) *int64 { return &o.Sessions.MaxFileSize }, bytesText),
	live("max-unverified", func(o *Options) *int64 { return &o.Sessions.MaxUnverified }, bytesText),
	live("quota-bytes", func(o *Options) *int64 { return &o.Sessions.QuotaBytes }, bytesText),
	live("quota-files", func(o *Options) *int64 { return &o.Sessions.QuotaFiles }),
	live("limit-rate", func(o *Options) *int64 { return &o.Network.LimitRate }, bytesText),
	live("min-free", func(o *Options) *int64 { return &o.Storage.MinFree }, bytesText),
	fixed("memory-budget", func(o *Options) *int64 { return &o.Machine.MemoryBudget }, bytesText),
	live("handshake-timeout", func(o *Options) *time.Duration { return &o.Network.HandshakeTimeout }),
	live("idle-timeout", func(o *Options) *time.Duration { return &o.Network.IdleTimeout }),
	live("drain-timeout", func(o *Options) *time.Duration { return &o.Network.DrainTimeout }),
	live("unverified-ttl", func(o *Options) *time.Duration { return &o.Storage.UnverifiedTTL }),
	live("partial-ttl", func(o *Options) *time.Duration { return &o.Storage.PartialTTL }),
	live("partial-budget", func(o *Options) *int64 { return &o.Storage.PartialBudget }, bytesText),
	live("keep-for", func(o *Options) *time.Duration { return &o.Storage.KeepFor }),
	fixed("workers", func(o *Options) *int { return &o.Machine.Workers }),
	fixed("loops", func(o *Options) *int { return &o.Machine.Loops }),
	fixed("admin", func(o *Options) *string { return &o.Admin.Listen }),
	fixed("admin-token-file", func(o *Options) *string { return &o.Admin.TokenFile }),
	fixed("admin-host", func(o *Options) *[]string { return &o.Admin.Hosts }, func(hosts []string) string { return strings.Join(hosts, ",") }),
	fixed("on-event", func(o *Options) *string { return &o.Events.Command }),
	fixed("event-url", func(o *Options) *string { return &o.Events.URL }).told(urlTold),
	fixed("event-secret-file", func(o *Options) *string { return &o.Events.SecretFile }),
	live("event-ttl", func(o *Options) *time.Duration { return &o.Events.TTL }),
	live("event-max", func(o *Options) *int { return &o.Events.Max }),
	live("event-retry", func(o *Options) *time.Duration { return &o.Events.Retry }),
	live("event-timeout", func(o *Options) *time.Duration { return &o.Events.Timeout }),
	fixed("event-parallel", func(o *Options) *int { return &o.Events.Parallel }),
	fixed("fault", func(o *Options) *string { return &o.Sessions.Faults }),
}

// Settings returns the flags that set an option, each with whether it may change while
// the server runs.
func Settings() map[string]bool {
	all := make(map[string]bool, len(settings))
	for _, s := range settings {
		all[s.flag] = s.live
	}
	return all
}

// live is a setting that may change while the server runs. text is what the flag takes,
// by default what fmt prints.
func live[T any](flag string, field func(*Options) *T, text ...func(T) string) setting {
	s := setting{
		flag: flag, live: true,
		text: func(o *Options) string { return fmt.Sprint(*field(o)) },
		take: func(to, from *Options) { *field(to) = *field(from) },
	}
	if len(text) > 0 {
		s.text = func(o *Options) string { return text[0](*field(o)) }
	}
	return s
}

// fixed is a setting that needs a restart.
func fixed[T any](flag string, field func(*Options) *T, text ...func(T) string) setting {
	s := live(flag, field, text...)
	s.live = false
	return s
}

// told has those who are told of a change see less of the value than the flag takes.
func (s setting) told(shown func(text string) string) setting {
	s.shown = shown
	return s
}

// urlTold is a URL without what may be secret in it: user and password, path and query.
func urlTold(text string) string {
	u, err := url.Parse(text)
	if text == "" || err == nil && text == u.Scheme+"://"+u.Host {
		return text
	}
	if err != nil {
		return "…"
	}
	return u.Scheme + "://" + u.Host + "/…"
}

func words(no, yes string) func(bool) string {
	return func(b bool) string {
		if b {
			return yes
		}
		return no
	}
}

func modeText(def fs.FileMode) func(fs.FileMode) string {
	return func(m fs.FileMode) string { return fmt.Sprintf("%04o", cmp.Or(m, def)) }
}

// bytesText is a size in the largest unit that it is a multiple of.
func bytesText(n int64) string {
	unit := 0
	for n != 0 && n%1024 == 0 && unit < 4 {
		n, unit = n/1024, unit+1
	}
	return strconv.FormatInt(n, 10) + []string{"", "KiB", "MiB", "GiB", "TiB"}[unit]
}
