package s3

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// usualCredentials looks where programs look: the environment, the shared file, the role of the machine.
func usualCredentials() *credentials.Credentials {
	const enough = 2 * time.Second // a machine without a role may not even answer
	client := &http.Client{
		Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: enough}).DialContext, ResponseHeaderTimeout: enough},
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{Client: client},
	})
}

// checkCredentials returns an error if there are none: without them the bucket would be asked as by anybody.
func (s *Store) checkCredentials() error {
	value, err := s.credentials.GetWithContext(nil)
	if err != nil {
		return fmt.Errorf("the credentials cannot be had: %w", err)
	}
	if value.AccessKeyID == "" || value.SecretAccessKey == "" {
		return errors.New("there are no credentials: want AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, or a role of the machine")
	}
	return nil
}
