package s3

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

const scheme = "s3://"

// IsURL reports whether s names a bucket, and not a directory.
func IsURL(s string) bool { return strings.HasPrefix(s, scheme) }

// URL says where a bucket is:
//
//	s3://bucket/prefix?endpoint=https://s3.example.com&region=eu-central-1&path-style=true
//
// Credentials are not part of it.
type URL struct {
	Bucket string
	Prefix string // of the names of all objects; "" or without slashes at its ends
	// Host and port of the S3 server. Without an endpoint in the URL, that of
	// AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, or else Amazon's.
	Endpoint string
	Secure   bool // TLS; only an endpoint with http:// goes without
	// Region, or that of AWS_REGION or AWS_DEFAULT_REGION. "" asks the server for it at
	// Amazon, and is us-east-1 elsewhere.
	Region string
	// PathStyle has the bucket's name in the path and not in the host's name: "true", "false",
	// or "auto", by the kind of endpoint.
	PathStyle string
}

func (u *URL) lookup() minio.BucketLookupType {
	switch u.PathStyle {
	case "true":
		return minio.BucketLookupPath
	case "false":
		return minio.BucketLookupDNS
	}
	return minio.BucketLookupAuto
}

// ParseURL takes a URL apart. The error says what would be right.
func ParseURL(s string) (URL, error) {
	if !IsURL(s) {
		return URL{}, fmt.Errorf("%q is no bucket: want s3://bucket/prefix", s)
	}
	parsed, err := url.Parse(s)
	if err != nil { // without the URL, which may have a password in it
		return URL{}, fmt.Errorf("the bucket's URL cannot be read: want s3://bucket/prefix?endpoint=…&region=…")
	}
	if parsed.User != nil {
		return URL{}, fmt.Errorf("credentials do not belong into the bucket's URL: want AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, or a role of the machine")
	}
	u := URL{Bucket: parsed.Host, Prefix: strings.Trim(parsed.Path, "/"), PathStyle: "auto", Secure: true}
	if err := s3utils.CheckValidBucketName(u.Bucket); err != nil {
		return URL{}, fmt.Errorf("bucket %q: %w", u.Bucket, err)
	}
	if len(u.Prefix) > maxPrefix || encodePath(u.Prefix) != u.Prefix || strings.Contains("/"+u.Prefix+"/", "//") && u.Prefix != "" ||
		strings.Contains("/"+u.Prefix+"/", "/./") || strings.Contains("/"+u.Prefix+"/", "/../") {
		return URL{}, fmt.Errorf("prefix %q: want folders in plain text, up to %d bytes", u.Prefix, maxPrefix)
	}
	endpoint := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
	for key, values := range parsed.Query() {
		value := values[len(values)-1]
		switch key {
		case "endpoint":
			endpoint = value
		case "region":
			u.Region = value
		case "path-style":
			if value != "true" && value != "false" && value != "auto" {
				return URL{}, fmt.Errorf("path-style %q: want true, false or auto", value)
			}
			u.PathStyle = value
		default:
			return URL{}, fmt.Errorf("%q in the bucket's URL is not known: want endpoint, region or path-style", key)
		}
	}
	u.Region = cmp.Or(u.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	return u, u.setEndpoint(endpoint)
}

func (u *URL) setEndpoint(endpoint string) error {
	if endpoint == "" {
		u.Endpoint = "s3.amazonaws.com"
		return nil
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	parsed, err := url.Parse(endpoint)
	if err != nil || parsed.Host == "" || strings.Trim(parsed.Path, "/") != "" || parsed.User != nil || parsed.RawQuery != "" ||
		parsed.Scheme != "http" && parsed.Scheme != "https" {
		return fmt.Errorf("the endpoint of the bucket cannot be read: want http://host:port or https://host:port")
	}
	u.Endpoint, u.Secure = parsed.Host, parsed.Scheme == "https"
	if u.Region == "" && !s3utils.IsAmazonEndpoint(*parsed) {
		u.Region = "us-east-1"
	}
	return nil
}

// String is the bucket with its prefix, for logs. It has nothing that is secret.
func (u URL) String() string { return strings.TrimSuffix(scheme+u.Bucket+"/"+u.Prefix, "/") }
