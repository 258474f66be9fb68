// Package capture makes the iptables rules that lead a Pod's TCP traffic through
// its Envoy, and applies them.
//
// What holds:
//
//  1. The rules are text that is a pure function of [Rules]; what is printed is
//     what is applied.
//  2. Applying is idempotent and, per address family, one transaction of
//     iptables-restore: at no moment is there half a rule set. Nothing but our
//     own two chains per direction and the jumps to them is touched.
//  3. Envoy's own traffic (by user ID) is not captured again, except what it
//     sends to its own Pod, which goes through the inbound listener like
//     anybody's.
//  4. Traffic that Envoy's inbound side sends to the application is recognised by
//     its source address, 127.0.0.6 or ::6. Without that rule it would come back
//     to Envoy for ever.
//
// IPv6 needs the address ::6 on the loopback interface; IPv4 has all of
// 127.0.0.0/8 there.
package capture
