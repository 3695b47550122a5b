# Carries out the formula without Homebrew, which cannot be had everywhere: as much of Homebrew's language as ours
# speaks, with the meaning that it has there, and an error for each word more.
#
#   ruby formula.rb FORMULA PREFIX install PROGRAM PAGES   as `brew install --build-from-source` does
#   ruby formula.rb FORMULA PREFIX test                    as `brew test` does, after it
#
# The tarball lies unpacked in PREFIX/build. Nothing is compiled: PROGRAM is what `cargo install` would have made, and
# the pages are those in the directory PAGES. Prints as JSON what the formula declares.
require "English"
require "fileutils"
require "json"
require "open3"
require "pathname"

HOMEBREW_PREFIX = Pathname(ARGV.fetch(1)).realpath

# As in Homebrew's extend/pathname.rb.
class Pathname
  # Moves, as Homebrew does: what is installed twice is missing the second time.
  def install(*sources)
    sources.flatten.each do |source|
      mkpath
      FileUtils.mv source.to_s, self/File.basename(source)
    end
  end

  def install_symlink(links)
    links.each do |target, name|
      mkpath
      FileUtils.ln_sf target, self/name
    end
  end
end

# `service do`.
class Service
  attr_reader :names

  def name(**names)
    @names = names
  end
end

# What a formula declares, and what it finds when it is installed and tested.
class Formula
  class << self
    attr_reader :declared, :service_names, :test_block

    def inherited(formula)
      super
      formula.instance_variable_set(:@declared, {})
    end

    [:desc, :homepage, :url, :sha256, :license, :head, :depends_on].each do |word|
      define_method(word) do |*values, **options|
        @declared[word] = options.empty? ? values.first : [*values, options]
      end
    end

    def service(&block)
      service = Service.new
      service.instance_eval(&block)
      @service_names = service.names
    end

    def test(&block)
      @test_block = block
    end
  end

  attr_reader :buildpath, :testpath, :version

  def initialize(version, program, pages)
    @version = version
    @program = program
    @pages = pages
    @buildpath = HOMEBREW_PREFIX/"build"
    @testpath = HOMEBREW_PREFIX/"test"
  end

  def name = "dbx-rotator"
  def prefix = HOMEBREW_PREFIX/"Cellar"/name/version
  def bin = prefix/"bin"
  def opt_bin = HOMEBREW_PREFIX/"opt"/name/"bin"
  def var = HOMEBREW_PREFIX/"var"
  def man1 = prefix/"share/man/man1"
  def man5 = prefix/"share/man/man5"
  def std_cargo_args = ["--jobs", "1", "--locked", "--root=#{prefix}", "--path=."]

  # What cargo would compile is there already; anything else is run.
  def system(command, *arguments)
    return cargo(*arguments.map(&:to_s)) if command == "cargo"

    Kernel.system(command.to_s, *arguments.map(&:to_s)) || raise("#{command}: #{$CHILD_STATUS}")
  end

  def cargo(subcommand, *arguments)
    case [subcommand, *arguments]
    in ["install", *options] if options == std_cargo_args
      bin.mkpath
      FileUtils.cp @program, bin/name
    in ["run", "--release", "--locked", "--example", "pages", "--", directory]
      FileUtils.cp_r @pages, directory
    end
  end

  def generate_completions_from_executable(*command)
    completions = { bash: "etc/bash_completion.d/NAME", zsh: "share/zsh/site-functions/_NAME",
                    fish: "share/fish/vendor_completions.d/NAME.fish" }
    completions.each do |shell, file|
      path = prefix/file.sub("NAME", name)
      path.dirname.mkpath
      path.write shell_output([*command, shell].join(" "))
    end
  end

  def inreplace(file, before, after)
    text = file.read
    raise "#{file} has no #{before}" unless text.include?(before.to_s)

    file.write text.gsub(before.to_s, after.to_s)
  end

  def shell_output(command)
    output, status = Open3.capture2(command)
    raise "#{command}: #{status}" unless status.success?

    output
  end

  def assert_equal(expected, actual)
    raise "expected #{expected.inspect}, not #{actual.inspect}" unless expected == actual
  end

  def assert_match(expected, actual)
    raise "expected #{expected.inspect} in #{actual.inspect}" unless actual.match?(expected)
  end
end

def install(formula)
  Dir.chdir(formula.buildpath) { formula.install }
  (HOMEBREW_PREFIX/"opt").install_symlink formula.prefix => formula.name
end

def test(formula)
  formula.testpath.mkpath
  ENV["HOME"] = formula.testpath.to_s
  Dir.chdir(formula.testpath) { formula.instance_exec(&formula.class.test_block) }
end

path, _, action, *built = ARGV
load path
# As Homebrew reads it from the name of the tarball.
version = DbxRotator.declared.fetch(:url)[/-([\d.]+)\.tar\.gz\z/, 1]
formula = DbxRotator.new(version, *built.values_at(0, 1))
(action == "install") ? install(formula) : test(formula)
puts JSON.generate(declared: DbxRotator.declared, service: DbxRotator.service_names, keg: formula.prefix)
