//go:build tools

// Package lnd only requires lnd, with the replace lines of its own go.mod (go install refuses modules that have any),
// so that its version and the hashes of its sources are pinned by go.mod and go.sum.
package lnd

import _ "github.com/lightningnetwork/lnd/cmd/lnd"
