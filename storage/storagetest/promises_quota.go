package storagetest

import "sealift/storage"

// promiseQuota lets in some of the uploads: they have 4,500 bytes on average.
var promiseQuota = storage.Quota{Bytes: 11_000, Files: 2}

// fits reports whether the quota lets in a file of size bytes at path, by what is on
// record.
func (m *promiseModel) fits(path string, size int64) bool {
	if !m.quota.Bounds() {
		return true
	}
	get := m.row(path)
	here := usageAt(get.Verified, get.Unverified)
	used, more := m.usage(), max(here.Bytes, size)-here.Bytes
	if more > 0 && used.Bytes+more > m.quota.Bytes || here.Files == 0 && used.Files+1 > m.quota.Files {
		return false
	}
	m.counts["let in by the quota"]++
	return true
}

// usage is what the rows add up to.
func (m *promiseModel) usage() (u storage.Usage) {
	for _, path := range promisePaths {
		get := m.row(path)
		u = u.Add(usageAt(get.Verified, get.Unverified))
	}
	return u
}

// checkQuota checks that what the client has is counted, if it is, as the rows add up, and
// that it is within the quota. Only a version that was missing and was found again, as one whose
// folder could not be synced, may take it beyond that.
func (m *promiseModel) checkQuota() {
	get := &storage.GetUsage{Outcome: storage.Outcome{By: storage.Server}, ID: clientID(1), Recount: true}
	m.apply(get)
	if used := m.usage(); get.Actual != used || get.Counted && get.Used != used {
		m.fatalf("the client has %+v by the rows, %+v by the registry, and the count is %+v", used, get.Actual, get.Used)
	}
	if get.Counted && !m.quota.Bounds() {
		m.fatalf("without a quota the client is counted")
	}
	for _, path := range promisePaths {
		v := m.row(path).Verified
		m.missed = m.missed || v != nil && v.Missing
	}
	if u := get.Actual; !m.missed && m.quota.Bounds() && (u.Bytes > m.quota.Bytes || u.Files > m.quota.Files) {
		m.fatalf("the client has %+v, its quota is %+v", u, m.quota)
	}
}
