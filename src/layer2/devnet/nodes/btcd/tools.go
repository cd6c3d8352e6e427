//go:build tools

// Package btcd only requires btcd, so that its version and the hashes of its sources are pinned by go.mod and go.sum.
package btcd

import _ "github.com/btcsuite/btcd"
