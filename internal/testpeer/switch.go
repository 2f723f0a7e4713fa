package testpeer

import "os"

// TLSVariable is an environment variable. With the value 1 the tests of the built
// programs have everything run over TLS that can.
const TLSVariable = "SEALIFT_TEST_TLS"

// OverTLS reports whether that is set.
func OverTLS() bool { return os.Getenv(TLSVariable) == "1" }

// Switched returns what protects a peer's connections in those tests: nil, or what all
// peers share.
func Switched() *TLS {
	if OverTLS() {
		return SharedTLS()
	}
	return nil
}

// ClientVariables are what a sealift needs in its environment in those tests, besides a
// known_servers of its own, and ServerVariables what a sealiftd does: to turn away
// what is not protected. They are flags by other means, see package flagenv.
func ClientVariables() []string {
	if OverTLS() {
		return []string{"SEALIFT_TLS=true", "SEALIFT_TLS_TRUST_FIRST=true"}
	}
	return nil
}

func ServerVariables() []string {
	if OverTLS() {
		return []string{"SEALIFT_TLS=require"}
	}
	return nil
}
