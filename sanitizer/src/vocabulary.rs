//! Words that belong to nobody. Lists, each with its reason; lower case.

use std::collections::HashSet;
use std::sync::LazyLock;

type Words = LazyLock<HashSet<&'static str>>;

fn words(lists: &[&'static str]) -> HashSet<&'static str> {
    lists.iter().flat_map(|l| l.split_whitespace()).collect()
}

/// True for a top-level domain: public by definition.
pub(crate) fn is_top_level(label: &str) -> bool {
    static TOP: Words = LazyLock::new(|| words(&[COUNTRY, GENERIC, SPECIAL_USE]));
    TOP.contains(label)
}

/// True for a top-level domain that is also a common ending of a file or a word of prose.
pub(crate) fn is_ambiguous_top_level(label: &str) -> bool {
    static AMBIGUOUS: Words = LazyLock::new(|| words(&[AMBIGUOUS_ENDINGS]));
    AMBIGUOUS.contains(label)
}

/// True for a registry's own level below a country (`co.uk`).
pub(crate) fn is_second_level(label: &str) -> bool {
    static SECOND: Words =
        LazyLock::new(|| words(&["co com net org ac edu gov gob or ne go mil sch nhs ltd plc"]));
    SECOND.contains(label)
}

/// True for a name that standards or vendors give to everybody (RFC 6761, RFC 6762, RFC 8375, OpenWrt).
pub(crate) fn is_special_use(label: &str) -> bool {
    static SPECIAL: Words = LazyLock::new(|| words(&[SPECIAL_USE]));
    SPECIAL.contains(label)
}

/// True for a DNS service label (RFC 6335, RFC 6763).
pub(crate) fn is_service_label(label: &str) -> bool {
    static SERVICE: Words = LazyLock::new(|| words(&[SERVICE_LABELS]));
    SERVICE.contains(label)
}

/// True for a label that says what a host does, in front of the name that says whose it is.
pub(crate) fn is_duty(label: &str) -> bool {
    static DUTY: Words = LazyLock::new(|| words(&[DUTIES]));
    DUTY.contains(label)
}

/// True for a word that providers put before a dashed address.
pub(crate) fn is_host_prefix(word: &str) -> bool {
    static PREFIX: Words = LazyLock::new(|| words(&[HOST_PREFIXES]));
    PREFIX.contains(word)
}

/// True for an account that every system has.
pub(crate) fn is_system_user(word: &str) -> bool {
    static USERS: Words = LazyLock::new(|| words(&[SYSTEM_USERS]));
    USERS.contains(word)
}

/// True for a word that is never replaced where it stands alone in text, even if somebody's host is called so, and
/// that is no secret behind a key: keywords of networking and configuration, common English.
pub(crate) fn is_common(word: &str) -> bool {
    static COMMON: Words = LazyLock::new(|| {
        words(&[
            ENGLISH,
            TECHNICAL,
            SYSTEM_USERS,
            SPECIAL_USE,
            HOST_PREFIXES,
            DUTIES,
        ])
    });
    COMMON.contains(word) || is_interface_name(word)
}

/// True for English function words and states that stand behind `password` in a log line.
pub(crate) fn is_prose(word: &str) -> bool {
    static PROSE: Words = LazyLock::new(|| words(&[ENGLISH]));
    PROSE.contains(word)
}

/// True for a word that no line of hosts(5) has behind its address, and a sentence or a line of ip(8) has.
pub(crate) fn is_line_keyword(word: &str) -> bool {
    static LINE: Words = LazyLock::new(|| {
        words(&[
            ENGLISH,
            "dev via lladdr proto scope metric src onlink unreachable reachable alive ping icmp_seq mtu table ms",
        ])
    });
    LINE.contains(word) || is_interface_name(word)
}

/// True for a name in the kernel's or udev's scheme (`eth0`, `enp3s0`, `br-lan`, `wlan0`, `veth1a2b`).
pub(crate) fn is_interface_name(word: &str) -> bool {
    let stem = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = word.len() - stem.len();
    let udev = ["en", "wl", "ww", "ib", "sl"].iter().any(|p| {
        word.strip_prefix(p).is_some_and(|rest| {
            rest.starts_with(['o', 's', 'p', 'x'])
                && rest[1..].starts_with(|c: char| c.is_ascii_digit())
        })
    });
    udev || word == "lo"
        || word.starts_with("br-")
        || word.starts_with("veth")
        || word.starts_with("docker")
        || (digits > 0 && INTERFACES.split(' ').any(|i| i == stem))
}

const INTERFACES: &str = "eth wlan wan lan br bond team vlan veth tun tap wg ppp pppoe-wan sit gre gretap ip6gre ip6tnl vti \
    vxlan dummy ifb macvlan macvtap ipvlan usb wwan lte dsl atm radio phy ap sta mesh mon swp sw port ge fe xe if l2tp tunl rmnet can";

const SPECIAL_USE: &str = "localhost localdomain local lan home internal intranet private corp test example invalid onion \
    arpa in-addr ip6 localhost4 localhost6 localdomain4 localdomain6 ip6-localhost ip6-loopback ip6-allnodes \
    ip6-allrouters ip6-localnet ip6-mcastprefix";

const SERVICE_LABELS: &str = "_tcp _udp _dns _dns-sd _services _sub _http _https _ipp _ipps _printer _ssh _sftp-ssh _smb _ntp \
    _sip _sips _ldap _ldaps _kerberos _kpasswd _xmpp-client _xmpp-server _imap _imaps _submission _domainkey _dmarc _mta-sts \
    _acme-challenge _airplay _raop _googlecast _hap _matter _workstation _device-info";

const DUTIES: &str = "www mail smtp imap pop3 ftp ntp time dns ns ns1 ns2 ns3 ns4 mx mx1 mx2 pool api cdn vpn wpad autodiscover";

const HOST_PREFIXES: &str = "ip ip4 ipv4 host dhcp dyn dynamic dsl adsl vdsl pool static cpe client customer cust node nat user \
    ppp pppoe broadband cable fiber ftth addr rev reverse unassigned ec2 compute vm srv server net";

const SYSTEM_USERS: &str = "root daemon bin sys sync games man mail news uucp proxy backup list irc nobody systemd-network \
    systemd-resolve systemd-timesync messagebus sshd ntp dnsmasq network ftp admin administrator ubnt pi operator guest \
    aizen www-data logd ubus chrony unbound bind named postgres redis mysql";

const AMBIGUOUS_ENDINGS: &str = "rs sh so md pl py ps pm id in is as to at be by do am my me no or us cc la ai it so st im \
    ms ma mo ml mk gz tf vi app dev zip mov info name pro link test example network home local private host \
    cat bar bin click log page run live space zone lan internal md";

const COUNTRY: &str = "ac ad ae af ag ai al am ao aq ar as at au aw ax az ba bb bd be bf bg bh bi bj bm bn bo br bs bt bv \
    bw by bz ca cc cd cf cg ch ci ck cl cm cn co cr cu cv cw cx cy cz de dj dk dm do dz ec ee eg er es et eu fi fj fk fm \
    fo fr ga gb gd ge gf gg gh gi gl gm gn gp gq gr gs gt gu gw gy hk hm hn hr ht hu id ie il im in io iq ir is it je jm \
    jo jp ke kg kh ki km kn kp kr kw ky kz la lb lc li lk lr ls lt lu lv ly ma mc md me mg mh mk ml mm mn mo mp mq mr ms \
    mt mu mv mw mx my mz na nc ne nf ng ni nl no np nr nu nz om pa pe pf pg ph pk pl pm pn pr ps pt pw py qa re ro rs ru \
    rw sa sb sc sd se sg sh si sj sk sl sm sn so sr ss st su sv sx sy sz tc td tf tg th tj tk tl tm tn to tr tt tv tw tz \
    ua ug uk us uy uz va vc ve vg vi vn vu wf ws ye yt za zm zw";

const GENERIC: &str = "com net org edu gov mil int info biz name pro aero asia cat coop jobs mobi museum post tel travel xxx \
    app dev cloud online site store shop tech xyz top club live blog network systems services solutions digital agency \
    email hosting host website space page world life group company berlin hamburg koeln wien london paris nyc tokyo \
    bayern nrw ruhr saarland swiss gmbh ngo ong bank insurance law legal consulting media news today center academy";

const ENGLISH: &str = "a about accepted add after edit list print remove show aging ages algorithm algorithms bad based changes changing database encryption \
    entries entry expiry files generator good hash hashes hashing length login prompts quality recovery rules store \
    strength string text then using verification were again all also an and any are as at auth authentication be because been before \
    being both but by can cannot change changed check closed connect connected connection could default deleted denied \
    did disabled do does done down during each either empty enabled error even expired expires failed failure false field \
    file find first for found from full get given good had has have here hidden how if ignored in incorrect into invalid \
    is it its key last less let long lost made make manager match may mismatch missing more most must new next no none \
    not now null of off ok old on once one only open option or other out over own page password policy prompt protected \
    protection read ready received refused rejected removed request required reset reset's same see sent server set \
    should since so some still stored such sync than that the their them then there these they this those through time \
    to too true try two undefined unknown unset until up update updated use used user username using valid value values \
    verify via was we were what when where which while who will with within without wrong yes yet you your";

const TECHNICAL: &str = "access accept address addr adjacency admin age agent alarm alert alias allow anchor area arp attempt \
    bandwidth bgp bits boot bridge broadcast buffer bus byte bytes cache carrier channel class client clock cluster code \
    collector command community conf config configuration console container control core count counter cpu crc current \
    dad data database date day deadline debug delay delete deny dest destination detail detected dev device dhcp diff disk \
    dns domain drop dropped dst duplex duplicate dynamic edge enable errors established ether ethernet event exit external \
    fail fast fatal fault firewall flags flow forward forwarding fragment frame free fw gap gateway gbit global good gre \
    group guest half hardware hash header health hello hop host hostname hour http https hub icmp igmp index inet inet6 \
    info ingress init inode input interface internal internet invalid iot ipsec ipv4 ipv6 iptables isp kernel key keys \
    label latency layer leaf lease length level light limit line link linux list listen lladdr load local log login loop \
    loss mac mail main management manual mark mask master max mbit media memory mesh message metric min minute mirror mode \
    model modem module monitor month mount mtu multicast name names nas nat neighbor neighbour net netmask network node \
    normal note notice ntp null number office offline online open openvpn openwrt option options ospf output owner packet \
    packets parent password path peer perm permanent phone phy ping point policy pool port ports power ppp pppoe prefix \
    printer priority private process proto protocol provider proxy public queue radio random range rate reachable record \
    redacted remote reply request reserved resolver resolvers restart result retry rip root route router routes routing \
    rule rules running rx scope script search second secondary secret security serial server service session signal site \
    size slave socket source speed spine src ssh ssid stale stage start state static station status stop storage subnet \
    switch syslog system table tag target tcp temp test text time timeout timer tls tmp token total trace trigger trunk \
    trust ttl tunnel tv tx type udp undo unicast unit unreachable unused update uplink uptime url usb user users version \
    vlan voip volume vpn wan warning watch web wifi window wire wired wireguard wireless work world write wwan zone";
