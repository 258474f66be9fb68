# IPv4
while iptables -w -t nat -D PREROUTING -p tcp -j BW_IN 2>/dev/null; do :; done
while iptables -w -t nat -D OUTPUT -p tcp -j BW_OUT 2>/dev/null; do :; done
iptables -w -t nat -F BW_IN 2>/dev/null || :
iptables -w -t nat -F BW_OUT 2>/dev/null || :
iptables -w -t nat -F BW_IN_REDIR 2>/dev/null || :
iptables -w -t nat -X BW_IN 2>/dev/null || :
iptables -w -t nat -X BW_OUT 2>/dev/null || :
iptables -w -t nat -X BW_IN_REDIR 2>/dev/null || :
# IPv6
while ip6tables -w -t nat -D PREROUTING -p tcp -j BW_IN 2>/dev/null; do :; done
while ip6tables -w -t nat -D OUTPUT -p tcp -j BW_OUT 2>/dev/null; do :; done
ip6tables -w -t nat -F BW_IN 2>/dev/null || :
ip6tables -w -t nat -F BW_OUT 2>/dev/null || :
ip6tables -w -t nat -F BW_IN_REDIR 2>/dev/null || :
ip6tables -w -t nat -X BW_IN 2>/dev/null || :
ip6tables -w -t nat -X BW_OUT 2>/dev/null || :
ip6tables -w -t nat -X BW_IN_REDIR 2>/dev/null || :
ip -6 addr del ::6/128 dev lo 2>/dev/null || :
