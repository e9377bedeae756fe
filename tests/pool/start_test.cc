// Instances that do not get anywhere when they are started.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ctime>
#include <optional>
#include <set>

#include "pool/dispatcher.h"
#include "pool/fake_cache.h"
#include "pool/start_watch.h"
#include "pool/supervisor.h"

namespace switchyard::pool {
namespace {

constexpr auto kLimit = std::chrono::seconds(60);
constexpr auto kSecond = std::chrono::seconds(1);

// Uses enough processor time for /proc to show it.
void work() {
  for (const std::clock_t end = std::clock() + CLOCKS_PER_SEC / 10; std::clock() < end;) {
  }
}

TEST(StartWatch, OneThatUsesNoProcessorTimeIsGivenUpOnce) {
  const pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  const TimePoint begin = monotonic_now();
  StartWatch watch(child, begin);
  EXPECT_FALSE(watch.look(begin, {}));
  EXPECT_FALSE(watch.look(begin + 19 * kSecond, {}));
  const auto why = watch.look(begin + 40 * kSecond, {});
  ASSERT_TRUE(why);
  EXPECT_NE(why->find("no sign of life"), std::string::npos) << *why;
  EXPECT_FALSE(watch.look(begin + 80 * kSecond, {}));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST(StartWatch, OneThatIsAtWorkHasLongerButNotForEver) {
  const TimePoint begin = monotonic_now();
  StartWatch watch(getpid(), begin);
  for (int i = 0; i < 5; ++i) {
    work();
    EXPECT_FALSE(watch.look(begin + (i + 1) * 19 * kSecond, {}));
  }
  work();
  const auto why = watch.look(begin + std::chrono::minutes(5), {});
  ASSERT_TRUE(why);
  EXPECT_NE(why->find("not ready 300 s"), std::string::npos) << *why;
}

TEST(StartWatch, OneThatHasEndedIsNotItsBusiness) {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  StartWatch watch(child, TimePoint{});
  EXPECT_FALSE(watch.look(monotonic_now(), {}));
  EXPECT_FALSE(StartWatch().look(monotonic_now(), {}));
}

// What `sleep` does is what a stopped instance does: nothing.
TEST(Start, AnInstanceThatHangsIsStartedAgainUntilThatIsHopeless) {
  FakeCache cache;
  std::mutex mutex;
  std::unique_ptr<Supervisor> supervisor;
  std::set<int> given_up;
  auto created = Dispatcher::create(
      {.slab_bytes = 16 << 10, .kv_bytes = 1 << 20, .berth_bytes = 1 << 20, .start = {.silence = Nanos(1)}},
      0, cache, nullptr, [&](const std::string& instance, int process, const std::string& why) {
        EXPECT_EQ(instance, "decode-0");
        const std::lock_guard lock(mutex);
        given_up.insert(process);
        if (supervisor) supervisor->replace(instance, process, why);
      });
  ASSERT_TRUE(created) << created.error().message;
  Dispatcher& dispatcher = **created;
  dispatcher.instance_changed("decode-0", Role::decode, "starting", "", 0, 0);
  auto started = std::make_unique<Supervisor>(
      std::vector<Supervisor::Process>{
          {.name = "decode-0", .role = Role::decode, .command = {"/bin/sleep", "1000"}}},
      [&](const Supervisor::Process& process, const std::string& state, const std::string& detail, int pid,
          std::uint64_t restarts) {
        dispatcher.instance_changed(process.name, process.role, state, detail, pid, restarts);
      });
  {
    const std::lock_guard lock(mutex);
    supervisor = std::move(started);
  }
  const TimePoint limit = monotonic_now() + kLimit;
  Status ready = fail(ErrorCode::timed_out, "not asked yet");
  while (!ready && ready.error().code == ErrorCode::timed_out && monotonic_now() < limit) {
    dispatcher.tick();
    ready = dispatcher.wait_ready(monotonic_now() + std::chrono::milliseconds(5));
  }
  ASSERT_FALSE(ready);
  EXPECT_EQ(ready.error().code, ErrorCode::io) << ready.error().message;
  EXPECT_NE(ready.error().message.find("no sign of life"), std::string::npos) << ready.error().message;
  std::unique_ptr<Supervisor> over;
  {
    const std::lock_guard lock(mutex);
    EXPECT_GE(given_up.size(), 3u);
    over = std::move(supervisor);
  }
}

}  // namespace
}  // namespace switchyard::pool
