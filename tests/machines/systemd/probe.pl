# Tries what the sandbox of a unit claims to forbid: a line for each directive, `NAME forbidden` or `NAME allowed`, and a few facts
# to be compared, `NAME = VALUE`. For x86-64; only what perl-base has.
use strict;
use warnings;
use Fcntl;

my $home = (getpwuid $>)[7];

sub tried { my ($name, $allowed) = @_; printf "%s %s\n", $name, $allowed ? 'allowed' : 'forbidden' }
sub fact { my ($name, $value) = @_; chomp $value; $value =~ s/\s+/ /g; print "$name = $value\n" }
sub writes { my $file = shift; return sysopen(my $handle, $file, O_WRONLY | O_CREAT | O_APPEND, 0600) }
sub reads { my $file = shift; return sysopen(my $handle, $file, O_RDONLY) }
sub calls { return syscall(shift, @_) != -1 }
sub slurp { my $file = shift; open my $handle, '<', $file or return ''; local $/; return <$handle> }

# Files
tried 'ProtectSystem', writes '/usr/local/open/file';
tried 'ProtectHome', writes '/home/bob/open/file';
tried 'InaccessiblePaths', reads "$home/.ssh/key";
tried 'ReadOnlyPaths', writes "$home/.bashrc";
tried 'ReadOnlyPaths-config', writes "$home/.config/dbx-rotator/config.toml";
tried 'ReadWritePaths', writes "$home/.pgpass-probe";
tried 'PrivateTmp', -e '/tmp/of-others';
tried 'PrivateDevices', -e '/dev/of-others';
tried 'ProtectKernelModules', reads '/usr/lib/modules/of-others';
tried 'ProtectProc', -e '/proc/1/status';
my ($cgroup) = slurp('/proc/self/cgroup') =~ /^0::(.*)$/m;
tried 'ProtectControlGroups', mkdir "/sys/fs/cgroup$cgroup/probe";
rmdir "/sys/fs/cgroup$cgroup/probe";
fact 'kernel-files', join ',', sort map { m{ (/proc/\S+) ro[, ]} ? $1 : () } split /\n/, slurp('/proc/self/mountinfo');

# Namespaces and identity
fact $_, readlink "/proc/self/ns/$_" for qw(mnt ipc uts user);
my %status = slurp('/proc/self/status') =~ /^(\w+):\s*(.*)$/mg;
fact $_, $status{$_} for qw(NoNewPrivs CapBnd Seccomp);
fact 'umask', sprintf '%04o', umask;
fact 'core', slurp('/proc/self/limits') =~ /^(Max core file size.*)$/m ? $1 : '';

# System calls
my $buffer = "\0" x 512;
tried 'LockPersonality', calls 135, 0x0040000;
tried 'MemoryDenyWriteExecute', calls 9, 0, 4096, 6, 0x22, -1, 0;
tried 'ProtectClock', calls 159, $buffer;
tried 'ProtectHostname', calls 170, my $name = 'probe', 5;
tried 'RestrictAddressFamilies', calls 41, 16, 3, 0;
my $priority = pack 'i', 1;
tried 'RestrictRealtime', calls 144, 0, 1, $priority;
my $own = "$home/.suid-probe";
writes $own;
tried 'RestrictSUIDSGID', chmod 04700, $own;
unlink $own;
tried 'SystemCallFilter-resources', calls 141, 0, 0, 5;
tried 'SystemCallFilter-others', fork_and_call(101, 0, 0, 0, 0);
tried 'RestrictNamespaces', fork_and_call(272, 0x10000000);
tried 'SystemCallArchitectures', runs_foreign_code();

# In a child, since it would change this process.
sub fork_and_call {
    my @call = @_;
    my $child = fork // die "fork: $!";
    if (!$child) {
        my $done = calls @call;
        require POSIX;
        POSIX::_exit($done ? 0 : 1);
    }
    waitpid $child, 0;
    return $? == 0;
}

# The smallest program for i386 that ends with 42: mov eax,1; mov ebx,42; int 0x80.
sub runs_foreign_code {
    my $code = "\xb8\x01\0\0\0\xbb\x2a\0\0\0\xcd\x80";
    my $base = 0x8048000;
    my $length = 52 + 32 + length $code;
    my $elf = "\x7fELF\x01\x01\x01" . "\0" x 9;
    $elf .= pack 'vvVVVVVvvvvvv', 2, 3, 1, $base + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0;
    $elf .= pack 'VVVVVVVV', 1, 0, $base, $base, $length, $length, 5, 4096;
    my $file = "$home/.foreign-probe";
    sysopen my $handle, $file, O_WRONLY | O_CREAT | O_TRUNC, 0700 or return 0;
    syswrite $handle, $elf . $code;
    close $handle;
    my $ended = system { $file } $file;
    unlink $file;
    return $ended == 42 << 8;
}

# journald finds a line's unit by the process that wrote it, which has to be there still when the line is read (SIOCOUTQ tells).
$| = 1;
my $unread = pack 'i', 1;
for (1 .. 1000) {
    last if !ioctl(STDOUT, 0x5411, $unread) || !unpack 'i', $unread;
    select undef, undef, undef, 0.01;
}
select undef, undef, undef, 0.1;
