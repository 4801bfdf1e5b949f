// Package egress lets a sandbox's requests out, as far as its policy allows.
//
// A [Gateway] owns the guest's network. It reads what each connection speaks,
// terminates TLS with a certificate for the requested name, and serves HTTP to
// the guest; every request is decided, then sent on by the host itself:
//
//  1. The port must be one a rule could allow, or the SYN is refused.
//  2. The connection must begin with TLS or an HTTP request, or it is reset.
//  3. The name the guest resolved, the TLS server name and the request's host and
//     port must agree.
//  4. A rule must allow the request.
//  5. The host resolves the name itself; every address found must be public or
//     exempt, and the one dialled is one that was checked.
//  6. Secrets go in last, below everything that could look at the request, and
//     only towards hosts they are bound to over verified TLS.
//
// A refusal is an HTTP 403 whose one-line body says what was refused and why,
// and an audit event either way.
//
// What comes back is scrubbed: secret values in response headers become their
// placeholders; in bodies from hosts a secret is bound to they become as many
// "*", which keeps every length right. To make that possible, a request that
// carries a secret asks for an unencoded answer. Not covered: bodies the server
// encodes all the same (the audit event says so), values the server transforms,
// slices or encodes otherwise, WebSocket frames after the upgrade.
package egress
