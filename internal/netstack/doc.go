// Package netstack is the other end of the guest's network cable: Ethernet,
// ARP, IPv4, ICMP, UDP and TCP on gVisor's stack, and a name server.
//
// The name server answers every name with an address that stands for this name
// alone and asks nobody. A connection to such an address therefore says which
// name it is for. Every TCP connection, to whatever address, ends in a [Handler];
// netstack itself forwards nothing and knows no policy.
//
// Only what a sandbox needs gets in: frames from the guest's own addresses, ARP
// for the gateway, unfragmented IPv4 without options, ping of the gateway. UDP
// other than to the name server is answered with "port unreachable", so that
// clients fall back to TCP at once. IPv6 is not spoken; AAAA has no answer.
package netstack
