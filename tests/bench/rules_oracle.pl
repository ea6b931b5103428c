#!/usr/bin/perl
# What SpamAssassin itself says of messages: all hits, sub-rules included. Local tests only: no network, no learning.
#
#   rules_oracle.pl --rules DIR LIST > HITS     one line a message: path TAB score TAB rules (name=hits, by space)
#   rules_oracle.pl --rules DIR --names         one line a rule that runs: name TAB kind TAB score of set 0
#   rules_oracle.pl --rules DIR --views FILE    the texts that its rules see of one message
#
# LIST has one path a line; `-` is standard input.
use strict;
use warnings;
use Mail::SpamAssassin;

my ($rules, $names, $views) = ('/usr/share/spamassassin');
my @rest;
while (defined(my $word = shift @ARGV)) {
    if    ($word eq '--rules') { $rules = shift @ARGV }
    elsif ($word eq '--names') { $names = 1 }
    elsif ($word eq '--views') { $views = shift @ARGV }
    else                       { push @rest, $word }
}

my $judge = Mail::SpamAssassin->new({
    rules_filename               => $rules,
    site_rules_filename          => '/etc/spamassassin',
    userprefs_filename           => '/dev/null',
    userstate_dir                => '/nonexistent',
    local_tests_only             => 1,
    dont_copy_prefs              => 1,
    keep_config_parsing_metadata => 1,
    # The package ships it, and its rules, but does not load it.
    pre_config_text              => "loadplugin Mail::SpamAssassin::Plugin::DecodeShortURLs\n",
    post_config_text             => "use_bayes 0\nuse_auto_welcomelist 0\ndns_available no\n",
});
binmode STDOUT;
$judge->init(0);

if ($names) {
    my $conf = $judge->{conf};
    my %kinds = map { $_ => 1 } grep { /_(?:tests|evals)$/ && ref $conf->{$_} eq 'HASH' } keys %$conf;
    my %seen;
    for my $kind (sort keys %kinds) {
        # Rules of MIME headers and metas stand under their names, all others under a priority first.
        if ($kind eq 'mimeheader_tests' || $kind eq 'meta_tests') {
            $seen{$_} = $kind for keys %{ $conf->{$kind} };
            next;
        }
        for my $priority (keys %{ $conf->{$kind} }) {
            my $rules = $conf->{$kind}->{$priority};
            $seen{$_} //= $kind for ref $rules eq "HASH" ? keys %$rules : ();
        }
    }
    for my $rule (sort keys %seen) {
        my $net = ($conf->{tflags}->{$rule} // '') =~ /\bnet\b/ ? 'net' : 'local';
        my $score = $conf->{scoreset}->[0]->{$rule} // ($rule =~ /^__/ ? 0 : 1);
        print join("\t", $rule, $seen{$rule}, $net, $score), "\n";
    }
    exit 0;
}

sub status_of {
    my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!\n";
    # The judge needs its own idea of a line.
    my $text = do { local $/; <$file> };
    my $message = $judge->parse($text, 1);
    return ($message, $judge->check($message));
}

if (defined $views) {
    my ($message, $status) = status_of($views);
    my $show = sub {
        my ($kind, @texts) = @_;
        for my $text (@texts) {
            $text = '' if !defined $text;
            utf8::encode($text) if utf8::is_utf8($text);
            $text =~ s/([\\\x00-\x1f\x7f-\xff])/sprintf('\\x%02x', ord $1)/ge;
            print "$kind\t$text\n";
        }
    };
    $show->('body', @{ $status->get_decoded_stripped_body_text_array() });
    $show->('rawbody', @{ $status->get_decoded_body_text_array() });
    $show->('uri', sort $status->get_uri_list());
    $show->($_, scalar $status->get($_, undef)) for qw(X-Spam-Relays-Trusted X-Spam-Relays-Untrusted X-Spam-Relays-Internal
        X-Spam-Relays-External EnvelopeFrom From:addr From:name Reply-To:addr ToCc MESSAGEID Subject ALL);
    my $tree = sub {
        my ($self, $node, $depth) = @_;
        $show->('part', ('  ' x $depth) . ($node->{type} // '?'));
        $self->($self, $_, $depth + 1) for @{ $node->{body_parts} || [] };
    };
    $tree->($tree, $message, 0);
    exit 0;
}

$judge->compile_now(0, 1);
my $list = shift @rest // '-';
open my $lines, $list eq '-' ? '<-' : "<$list" or die "$list: $!\n";
$| = 1;
while (my $path = <$lines>) {
    chomp $path;
    next if $path eq '';
    my ($message, $status) = status_of($path);
    my $hits = $status->{tests_already_hit};
    print join("\t", $path, $status->get_score(), join(' ', map { "$_=$hits->{$_}" } grep { $hits->{$_} } sort keys %$hits)), "\n";
    $status->finish();
    $message->finish();
}
