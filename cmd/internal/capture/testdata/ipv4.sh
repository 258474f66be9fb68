set -e

# IPv4
while iptables -w -t nat -D PREROUTING -p tcp -j BW_IN 2>/dev/null; do :; done
while iptables -w -t nat -D OUTPUT -p tcp -j BW_OUT 2>/dev/null; do :; done
iptables-restore -w --noflush <<'EOF'
*nat
:BW_IN - [0:0]
:BW_OUT - [0:0]
:BW_IN_REDIR - [0:0]
-A BW_IN -p tcp -j BW_IN_REDIR
-A BW_IN_REDIR -p tcp -j REDIRECT --to-ports 15006
-A BW_OUT -s 127.0.0.6/32 -o lo -j RETURN
-A BW_OUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --uid-owner 1337 -j BW_IN_REDIR
-A BW_OUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A BW_OUT -m owner --uid-owner 1337 -j RETURN
-A BW_OUT -d 127.0.0.1/32 -j RETURN
-A BW_OUT -p tcp -j REDIRECT --to-ports 15001
-A PREROUTING -p tcp -j BW_IN
-A OUTPUT -p tcp -j BW_OUT
COMMIT
EOF
