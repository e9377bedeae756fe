#include "pool/instance.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "base/log.h"
#include "base/system_limits.h"
#include "cli/commands.h"
#include "cli/terminal.h"

namespace switchyard::cli {
namespace {

Result<std::vector<std::byte>> from_hex(const std::string& text) {
  std::vector<std::byte> bytes;
  if (text.size() % 2 != 0) return fail(ErrorCode::invalid, "an odd number of hexadecimal digits");
  for (std::size_t i = 0; i < text.size(); i += 2) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data() + i, text.data() + i + 2, value, 16);
    if (error != std::errc() || end != text.data() + i + 2)
      return fail(ErrorCode::invalid, "not hexadecimal");
    bytes.push_back(static_cast<std::byte>(value));
  }
  return bytes;
}

// All that a descriptor gives, which is then closed.
Result<std::string> read_key(int descriptor) {
  std::string key(EngineOptions::kMaxKeyBytes + 1, '\0');
  std::size_t length = 0;
  ssize_t count = 0;
  while (length < key.size() && (count = read(descriptor, key.data() + length, key.size() - length)) != 0) {
    if (count < 0 && errno != EINTR)
      return fail(ErrorCode::invalid, "descriptor {}: {}", descriptor, error_text(errno));
    if (count > 0) length += static_cast<std::size_t>(count);
  }
  close(descriptor);
  key.resize(length);
  return key;
}

struct Arguments {
  pool::InstanceOptions options;
  std::string role;
  std::string supervisor;
  int key_descriptor = -1;
};

int run(Arguments& arguments) {
  log::start(arguments.options.name);
  auto role = pool::parse_role(arguments.role);
  if (!role) return report(role.error());
  arguments.options.role = *role;
  const auto bytes = from_hex(arguments.supervisor);
  if (!bytes) return report(bytes.error());
  auto supervisor = PeerAddress::parse(*bytes);
  if (!supervisor) return report(supervisor.error());
  arguments.options.supervisor = *std::move(supervisor);
  if (arguments.key_descriptor >= 0) {
    auto key = read_key(arguments.key_descriptor);
    if (!key) return report(key.error());
    arguments.options.shared_key = *std::move(key);
  }
  if (auto status = pool::run_instance(arguments.options); !status) {
    log::error("{}", status.error().message);
    return 1;
  }
  return 0;
}

}  // namespace

void add_instance(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("instance", "");
  command->group("");  // hidden: the supervisor starts it
  auto arguments = std::make_shared<Arguments>();
  command->add_option("--name", arguments->options.name)->required();
  command->add_option("--role", arguments->role)->required();
  command->add_option("--fabric", arguments->options.fabric)->required();
  command->add_option("--threads", arguments->options.threads)->required();
  command->add_option("--kv-memory", arguments->options.kv_bytes)->required();
  command->add_option("--kv-slab", arguments->options.slab_bytes)->required();
  command->add_option("--berths", arguments->options.berths)->required();
  command->add_option("--berth-memory", arguments->options.berth_bytes)->required();
  command->add_option("--supervisor", arguments->supervisor)->required();
  command->add_option("--key-descriptor", arguments->key_descriptor);
  command->add_flag("--control-tls", arguments->options.control_tls);
  command->callback([&chosen, arguments] { chosen = [arguments] { return run(*arguments); }; });
}

}  // namespace switchyard::cli
