// Package policy decides what a sandbox may reach. It is pure: no I/O, no
// clock, no goroutines, so every decision can be repeated from its inputs.
//
// A [Network] is plain data. [Compile] turns it into an [Engine], which answers
// three questions: may this connection be opened at all ([Engine.Connect]), may
// this request be sent ([Engine.Request]), and may this name be reached at this
// address ([Engine.Address]). Every answer is a [Decision] that names the rule
// that allowed it or the reason it was refused, and what would allow it. The zero
// Network allows nothing.
//
// Rules are asked in order, and the first one that matches decides. A Network can
// be within others, which must then allow the same. Time is linear in the number of
// rules; conditions apart, evaluation allocates no memory. [Engine.Explain] says
// what each rule had to say, and [Check] finds rules that cannot be meant.
//
// # Host patterns
//
// A host pattern is one of
//
//	api.example.com      exactly this name
//	*.example.com        every name below example.com, at any depth; never
//	                     example.com itself and never evilexample.com
//	*                    every name; never an address
//	192.0.2.7  [2001:db8::1]  exactly this address
//	192.0.2.0/24              the addresses in this range; only in rules
//
// each but the last optionally followed by ":port". "*" stands only as the whole pattern or
// as the whole first label. Case and one trailing dot do not matter, and names
// outside ASCII are compared in their IDNA (UTS 46) form. A pattern with a
// scheme, a path, an empty label or another character is refused by Compile
// with an error that names it. Matching is one pass over the name.
//
// # Internal addresses
//
// A rule allows a name, not where it leads: addresses in the special-purpose
// registries of IANA (see [Internal]) stay blocked even for allowed names,
// unless Network.AllowInternal names the host or the range. An entry there
// lifts only this block; the host must still match a rule.
//
// # Secrets
//
// A [Secret] never prints its value. It may be sent only over https, to the
// hosts it is bound to, on port 443 unless the pattern gives another port.
package policy
