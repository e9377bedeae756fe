// `switchyard doctor`: what this machine has, which paths the program takes because of it, and what to do
// about what is missing.
#include <dlfcn.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/commands.h"
#include "cli/default_model.h"
#include "cli/terminal.h"
#include "fabric/fabric.h"

namespace switchyard::cli {
namespace fs = std::filesystem;
namespace {

struct Finding {
  std::string area;
  std::string state;  // "ok", "absent" (and not needed), "warning"
  std::string text;
  std::string advice;  // empty: nothing to do
  nlohmann::json facts = nlohmann::json::object();
};

std::string field_of(const char* file, std::string_view key) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (!line.starts_with(key)) continue;
    const auto colon = line.find(':');
    if (colon == std::string::npos) continue;
    const auto value = line.find_first_not_of(" \t", colon + 1);
    return value == std::string::npos ? "" : line.substr(value);
  }
  return "";
}

Finding check_cpu() {
  utsname system{};
  uname(&system);
  std::string isa = "scalar";
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) isa = "AVX2";
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    isa = "AVX-512";
  }
#endif
  const std::string name = field_of("/proc/cpuinfo", "model name");
  const unsigned cores = std::thread::hardware_concurrency();
  Finding finding{.area = "CPU", .state = "ok"};
  finding.text = fmt::format("{}, {} core{}, {} kernels", name.empty() ? system.machine : name, cores,
                             cores == 1 ? "" : "s", isa);
  finding.facts = {{"name", name}, {"machine", system.machine}, {"cores", cores}, {"kernels", isa}};
  if (isa == "scalar") {
    finding.state = "warning";
    finding.advice = "No vector kernels for this CPU: models run, slowly.";
  }
  return finding;
}

Finding check_memory() {
  const auto kib = [](std::string_view key) {
    return std::strtoull(field_of("/proc/meminfo", key).c_str(), nullptr, 10);
  };
  const auto total = kib("MemTotal");
  const auto available = kib("MemAvailable");
  Finding finding{.area = "Memory", .state = "ok"};
  finding.text = fmt::format("{:.1f} GiB, {:.1f} available", static_cast<double>(total) / 1048576.0,
                             static_cast<double>(available) / 1048576.0);
  finding.facts = {{"total_bytes", total * 1024}, {"available_bytes", available * 1024}};
  if (available < (3u << 20)) {
    finding.state = "warning";
    finding.advice = "Less than 3 GiB is available: give instances less with --kv-memory 256MiB.";
  }
  return finding;
}

// The CUDA driver, found at run time: the program does not link it.
Finding check_gpus() {
  Finding finding{.area = "GPU", .state = "absent", .text = "none: models run on the CPU"};
  finding.facts = {{"count", 0}, {"used", false}};
  void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver == nullptr) return finding;
  const auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
  const auto count_of = reinterpret_cast<int (*)(int*)>(dlsym(driver, "cuDeviceGetCount"));
  const auto name_of = reinterpret_cast<int (*)(char*, int, int)>(dlsym(driver, "cuDeviceGetName"));
  int count = 0;
  if (init != nullptr && count_of != nullptr && name_of != nullptr && init(0) == 0 && count_of(&count) == 0 &&
      count > 0) {
    std::vector<std::string> names;
    for (int device = 0; device < count; ++device) {
      char name[256] = {};
      if (name_of(name, sizeof(name) - 1, device) == 0) names.emplace_back(name);
    }
    finding.text = fmt::format("{} found ({}), not used: this version computes on the CPU", count,
                               names.empty() ? "unnamed" : names.front());
    finding.facts = {{"count", count}, {"names", names}, {"used", false}};
  } else {
    finding.text = "a CUDA driver is installed, but no GPU answers: models run on the CPU";
  }
  return finding;
}

Finding check_rdma() {
  Finding finding{.area = "RDMA", .state = "absent", .text = "no devices: software fabrics carry KV blocks"};
  std::vector<std::string> devices;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/sys/class/infiniband", error)) {
    devices.push_back(entry.path().filename().string());
  }
  finding.facts = {{"devices", devices}};
  if (!devices.empty()) {
    finding.state = "ok";
    finding.text = fmt::format("{} device(s), the first is {}", devices.size(), devices.front());
  }
  return finding;
}

std::vector<Finding> check_fabrics() {
  std::vector<Finding> findings;
  for (const auto& fabric : fabric::list_fabrics("127.0.0.1")) {
    Finding finding{
        .area = "Fabric " + fabric.name, .state = fabric.usable ? "ok" : "absent", .text = fabric.detail};
    finding.facts = {{"fabric", fabric.name}, {"usable", fabric.usable}};
    findings.push_back(std::move(finding));
  }
  const auto chosen = fabric::automatic_fabric("127.0.0.1");
  findings.push_back({.area = "Path between processes",
                      .state = chosen ? "ok" : "warning",
                      .text = chosen ? *chosen : chosen.error().message,
                      .advice = chosen ? "" : "Serve with --unified, which needs no fabric.",
                      .facts = {{"fabric", chosen ? nlohmann::json(*chosen) : nlohmann::json()}}});
  return findings;
}

Finding check_files() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  Finding finding{.area = "Open files", .state = "ok", .text = fmt::format("limit {}", limit.rlim_cur)};
  finding.facts = {{"limit", limit.rlim_cur}};
  if (limit.rlim_cur < 1024) {
    finding.state = "warning";
    finding.advice = "Connections are limited by this: raise it with ulimit -n 4096.";
  }
  return finding;
}

Finding check_locked_memory() {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  const bool unlimited = limit.rlim_cur == RLIM_INFINITY;
  Finding finding{.area = "Locked memory", .state = "ok"};
  finding.text = unlimited ? "unlimited" : fmt::format("limit {} KiB", limit.rlim_cur >> 10);
  finding.facts = {{"limit_bytes", unlimited ? nlohmann::json() : nlohmann::json(limit.rlim_cur)}};
  std::error_code error;
  if (!unlimited && !fs::is_empty("/sys/class/infiniband", error) && !error) {
    finding.state = "warning";
    finding.advice = "RDMA needs memory to be pinned: set 'memlock unlimited' in /etc/security/limits.conf.";
  }
  return finding;
}

Finding check_model() {
  const fs::path path = default_model_path();
  std::error_code error;
  const bool there = fs::exists(path, error);
  Finding finding{.area = "Default model", .state = there ? "ok" : "absent"};
  finding.text = there ? path.string() : "not fetched yet";
  finding.advice = there ? "" : "switchyard pull fetches it; serve and generate do so by themselves.";
  finding.facts = {{"path", path.string()}, {"present", there}};
  return finding;
}

int run(bool json) {
  std::vector<Finding> findings = {check_cpu(), check_memory(), check_gpus(), check_rdma()};
  for (auto& finding : check_fabrics()) findings.push_back(std::move(finding));
  findings.push_back(check_files());
  findings.push_back(check_locked_memory());
  findings.push_back(check_model());
  if (json) {
    nlohmann::json report = {{"version", SWITCHYARD_VERSION}, {"findings", nlohmann::json::array()}};
    for (const Finding& finding : findings) {
      report["findings"].push_back({{"area", finding.area},
                                    {"state", finding.state},
                                    {"text", finding.text},
                                    {"advice", finding.advice},
                                    {"facts", finding.facts}});
    }
    fmt::print("{}\n", report.dump(2));
    return 0;
  }
  for (const Finding& finding : findings) {
    fmt::print("{:<24}{:<9}{}\n", finding.area, finding.state, finding.text);
    if (!finding.advice.empty()) fmt::print("{:<33}-> {}\n", "", finding.advice);
  }
  return 0;
}

}  // namespace

void add_doctor(CLI::App& app, Chosen& chosen) {
  auto* command =
      app.add_subcommand("doctor", "Show what this machine has, which paths are taken, and what to mend");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print JSON");
  command->callback([&chosen, json] { chosen = [json] { return run(*json); }; });
}

}  // namespace switchyard::cli
