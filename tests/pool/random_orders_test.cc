// Random orders to several instances and models: whatever the order of things, every request's text is what
// the plainest computation gives, nothing is lost, and nothing is held in the end.
#include <gtest/gtest.h>

#include <set>

#include "pool/ordering.h"

namespace switchyard::pool {
namespace {

class RandomOrders : public Ordering, public testing::WithParamInterface<int> {
 protected:
  enum class Where {
    fresh,
    expecting,  // `to` is to take it from `at`, for a prefill or (with KV) a push
    expected,
    prefilling,
    resting,
    running,
    pushing,
    moving_out,
    in_host,
    moving_in,
    releasing,
    done,
  };
  struct Life {
    Asked asked;
    Where where = Where::fresh;
    std::string at, to;
    bool has_kv = false;
    KvTarget target = KvTarget::stay;
    bool token = false;    // of its prefill
    bool arrived = false;  // where it is prefilled to
    kv::Destination destination;
    std::vector<BlockId> host;
    std::vector<std::int32_t> news;
    std::set<std::string> releases;  // that are not answered
    bool writer_first = false;       // the release of `to` waits for that of `at`
  };
  struct Machine {
    std::uint64_t job = 0;
    ModelId model = schedule::kNoModel;
    bool decodes = false;
    bool loading = false;
    std::set<ModelId> resident;
  };

  static constexpr std::uint64_t kKvBytes = 1 << 20;

  bool chance(std::uint32_t percent) { return random_() % 100 < percent; }
  std::uint64_t charge(const Life& life) const {
    const auto blocks =
        model::KvLayout::blocks_for(static_cast<std::uint32_t>(life.asked.prompt.size()) + life.asked.count) +
        1;
    return blocks * block_charge(64 << 10, whole_units(fake_shape(fakes_[life.asked.model]).block_bytes()));
  }
  // Room for one more, some slabs left over for the ends of shapes.
  bool fits(const std::string& name, const Life& life) const {
    std::uint64_t sum = charge(life) + 3 * (64 << 10);
    for (const Life& each : lives_) {
      if (each.where == Where::fresh || each.where == Where::in_host || each.where == Where::done) continue;
      if (each.at == name || each.to == name) sum += charge(each);
    }
    return sum <= kKvBytes;
  }
  std::string any_machine() {
    auto found = machines_.begin();
    std::advance(found, random_() % machines_.size());
    return found->first;
  }

  // --- Orders ---
  void expect_at(Life& life, const std::string& from, const std::string& to) {
    life.where = Where::expecting;
    life.at = from;
    life.to = to;
    introduce(to, life.asked);
    const std::size_t all = life.asked.prompt.size() + life.asked.got.size();
    order(to, Expect{.ticket = life.asked.ticket,
                     .tokens = static_cast<std::uint32_t>(life.has_kv ? all - 1 : all),
                     .from = running_[from].address.serialize(),
                     .limit_ms = 60000});
  }
  void run_prefill(const std::string& name, ModelId model) {
    Machine& machine = machines_[name];
    RunPrefill run{.job = next_serial_++, .model = model};
    for (Life& life : lives_) {
      if (life.asked.model != model || run.prompts.size() == 4) continue;
      RunPrefill::Prompt prompt{.ticket = life.asked.ticket};
      if (life.where == Where::expected && !life.has_kv && life.at == name) {
        prompt.target = KvTarget::peer;
        prompt.peer = running_[life.to].address.serialize();
        prompt.destination = life.destination;
      } else if (life.where == Where::fresh && chance(60) && fits(name, life)) {
        if (chance(40)) {
          prompt.target = KvTarget::host;
          prompt.host_blocks = life.host;
        }
      } else {
        continue;
      }
      introduce(name, life.asked);
      life.at = name;
      life.where = Where::prefilling;
      life.target = prompt.target;
      life.token = life.arrived = false;
      run.prompts.push_back(std::move(prompt));
    }
    if (run.prompts.empty()) return;
    machine.job = run.job;
    machine.model = model;
    machine.decodes = false;
    order(name, run);
  }
  void run_decode(const std::string& name, ModelId model) {
    RunDecode run{
        .job = next_serial_++, .model = model, .limit = std::chrono::microseconds(random_() % 4000)};
    for (Life& life : lives_) {
      if (life.where != Where::resting || life.at != name || life.asked.model != model || chance(20))
        continue;
      run.rows.push_back({.ticket = life.asked.ticket, .news = std::exchange(life.news, {})});
      life.where = Where::running;
    }
    if (run.rows.empty() && !chance(5)) return;
    machines_[name].job = run.job;
    machines_[name].model = model;
    machines_[name].decodes = true;
    order(name, run);
  }
  void load_some(const std::string& name) {
    Machine& machine = machines_[name];
    if (machine.loading) return;
    const auto model = static_cast<ModelId>(random_() % fakes_.size());
    if (machine.resident.contains(model)) return;
    LoadModel load{.serial = next_serial_++, .model = model, .image = images_[model].name()};
    if (machine.resident.size() == 2) {
      std::vector<ModelId> idle;
      for (const ModelId each : machine.resident) {
        if (machine.job == 0 || machine.model != each) idle.push_back(each);
      }
      const ModelId evicted = idle[random_() % idle.size()];
      machine.resident.erase(evicted);
      order(name, EvictModel{.model = evicted});
    }
    machine.loading = true;
    order(name, load);
  }
  void release(Life& life) {
    const Ticket& ticket = life.asked.ticket;
    const auto tell = [&](const std::string& name, bool writer_done) {
      life.releases.insert(name);
      order(name, Release{.ticket = ticket, .writer_done = writer_done});
    };
    const bool writing =
        life.where == Where::pushing || (life.where == Where::prefilling && life.target == KvTarget::peer);
    const bool waits = life.where == Where::expecting || life.where == Where::expected;
    life.writer_first = false;
    if (writing) {
      tell(life.at, false);
      life.writer_first = true;
      if (chance(50)) tell(life.to, false);
    } else if (waits) {
      tell(life.to, true);
      if (life.has_kv) tell(life.at, false);
    } else {
      tell(life.at, false);
    }
    life.where = Where::releasing;
  }
  void act(Life& life) {
    ++seen_[life.where];
    switch (life.where) {
      case Where::fresh: {
        const std::string from = any_machine();
        const std::string to = any_machine();
        if (from != to && chance(30) && fits(from, life) && fits(to, life)) expect_at(life, from, to);
        break;
      }
      case Where::resting: {
        Machine& machine = machines_[life.at];
        const std::string to = any_machine();
        if (machine.job != 0 && machine.decodes && machine.model == life.asked.model && chance(50)) {
          order(life.at, Join{.job = machine.job,
                              .row = {.ticket = life.asked.ticket, .news = std::exchange(life.news, {})}});
          life.where = Where::running;
        } else if (chance(15)) {
          order(life.at, MoveOut{.ticket = life.asked.ticket, .host_blocks = life.host});
          life.where = Where::moving_out;
        } else if (chance(15) && to != life.at && fits(to, life)) {
          expect_at(life, life.at, to);
        }
        break;
      }
      case Where::in_host: {
        const std::string to = any_machine();
        if (!fits(to, life)) break;
        introduce(to, life.asked);
        const auto blocks = model::KvLayout::blocks_for(kv_tokens(life.asked));
        order(to, MoveIn{.ticket = life.asked.ticket,
                         .host_blocks = {life.host.begin(), life.host.begin() + blocks}});
        life.at = to;
        life.where = Where::moving_in;
        break;
      }
      default:
        break;
    }
    const bool somewhere = life.where != Where::fresh && life.where != Where::in_host &&
                           life.where != Where::releasing && life.where != Where::done;
    if (somewhere && random_() % 200 == 0) release(life);
  }

  // --- News ---
  Life* find(const Ticket& ticket) {
    for (Life& life : lives_) {
      if (life.asked.ticket == ticket && life.where != Where::done) return &life;
    }
    return nullptr;
  }
  void finish_if_ended(Life& life) {
    if (life.where == Where::releasing || life.where == Where::done) return;
    if (life.asked.outcome == RowOutcome::running) return;
    check(life.asked);
    life.where = Where::done;
  }
  void prefilled(Life& life) {
    if (life.where != Where::prefilling || !life.token) return;
    if (life.target != KvTarget::stay && !life.arrived) return;
    if (life.asked.outcome != RowOutcome::running) {
      if (life.target == KvTarget::peer)
        order(life.to, Release{.ticket = life.asked.ticket, .writer_done = true});
      return finish_if_ended(life);
    }
    life.has_kv = true;
    life.where = life.target == KvTarget::host ? Where::in_host : Where::resting;
    life.news.clear();
    if (life.target == KvTarget::peer) {
      life.news = {life.asked.got.back()};
      life.at = std::exchange(life.to, "");
    }
  }
  void restart(Life& life) {
    ++life.asked.ticket.attempt;
    life.at.clear();
    life.to.clear();
    life.news.clear();
    life.has_kv = false;
    life.where = Where::fresh;
    finish_if_ended(life);
  }

  void heard(const std::string& from, const Tokens& tokens) {
    for (const auto& entry : tokens.entries) {
      EXPECT_NE(entry.outcome, RowOutcome::failed) << entry.error.message;
      Life* const life = find(entry.ticket);
      if (life == nullptr) continue;
      take({.job = tokens.job, .entries = {entry}}, {&life->asked});
      if (life->where == Where::prefilling && life->at == from) {
        life->token = true;
        prefilled(*life);
      } else {
        finish_if_ended(*life);
      }
    }
  }
  void heard(const std::string& from, const JobEnded& ended) {
    EXPECT_EQ(machines_[from].job, ended.job);
    machines_[from].job = 0;
    for (Life& life : lives_) {
      if (life.where == Where::running && life.at == from) life.where = Where::resting;
    }
  }
  void heard(const std::string& from, const Loaded& loaded) {
    EXPECT_TRUE(loaded.ready) << loaded.error.message;
    machines_[from].loading = false;
    machines_[from].resident.insert(loaded.model);
  }
  void heard(const std::string&, const Expecting& expecting) {
    Life* const life = find(expecting.ticket);
    if (life == nullptr || life->where != Where::expecting) return;
    life->destination = expecting.destination;
    life->where = Where::expected;
    if (!life->has_kv) return;
    order(life->at, PushKv{.ticket = life->asked.ticket,
                           .peer = running_[life->to].address.serialize(),
                           .destination = life->destination});
    life->where = Where::pushing;
  }
  void heard(const std::string&, const KvHere& here) {
    Life* const life = find(here.ticket);
    if (life == nullptr) return;
    if (life->where == Where::prefilling) {
      life->arrived = true;
      prefilled(*life);
    } else if (life->where == Where::pushing) {
      life->at = std::exchange(life->to, "");
      life->news.clear();
      life->where = Where::resting;
    }
  }
  void heard(const std::string&, const KvMoved& moved) {
    Life* const life = find(moved.ticket);
    if (life == nullptr) return;
    if (life->where == Where::prefilling) {
      life->arrived = true;
      prefilled(*life);
    } else if (life->where == Where::moving_out) {
      life->where = Where::in_host;
      life->news.clear();
    } else if (life->where == Where::moving_in) {
      life->where = Where::resting;
    }
  }
  void heard(const std::string& from, const Released& released) {
    Life* const life = find(released.ticket);
    if (life == nullptr || life->where != Where::releasing) return;
    life->releases.erase(from);
    if (from == life->at && std::exchange(life->writer_first, false)) {
      life->releases.insert(life->to);
      order(life->to, Release{.ticket = life->asked.ticket, .writer_done = true});
    }
    if (life->releases.empty() && !life->writer_first) restart(*life);
  }
  void heard(const std::string& from, const KvLost& lost) {
    ADD_FAILURE() << from << " lost request " << lost.ticket.id << ": " << lost.why.message;
  }
  template <class M>
  void pass_on(const News& news) {
    const auto message = parse<M>(news.payload);
    ASSERT_TRUE(message);
    heard(news.instance, *message);
  }
  void handle(const News& news) {
    switch (news.type) {
      case OrderType::tokens:
        return pass_on<Tokens>(news);
      case OrderType::job_ended:
        return pass_on<JobEnded>(news);
      case OrderType::loaded:
        return pass_on<Loaded>(news);
      case OrderType::expecting:
        return pass_on<Expecting>(news);
      case OrderType::kv_here:
        return pass_on<KvHere>(news);
      case OrderType::kv_moved:
        return pass_on<KvMoved>(news);
      case OrderType::released:
        return pass_on<Released>(news);
      case OrderType::kv_lost:
        return pass_on<KvLost>(news);
      default:
        ADD_FAILURE() << "a report of type " << static_cast<int>(news.type);
    }
  }

  std::map<std::string, Machine> machines_;
  std::vector<Life> lives_;
  std::map<Where, std::uint64_t> seen_;  // how often a request was found there
};

TEST_P(RandomOrders, EveryTextIsRightAndNothingIsLeft) {
  random_.seed(static_cast<std::uint32_t>(GetParam()));
  for (const char* name : {"a", "b", "c"}) {
    start(name, kKvBytes);
    machines_[name];
  }
  // Steps that take a while, so that orders come in the middle of things.
  add_model({.salt = 1, .readings = 2000});
  add_model({.layers = 5, .head_dim = 16, .salt = 2, .readings = 5000});
  add_model({.layers = 2, .head_dim = 24, .salt = 3, .readings = 2000});
  const std::vector<std::int32_t> common = random_prompt(200);
  for (int i = 0; i < 48; ++i) {
    Life& life = lives_.emplace_back();
    life.asked =
        ask(static_cast<ModelId>(random_() % fakes_.size()), 1 + random_() % 250, 1 + random_() % 120);
    if (chance(50)) {
      std::copy_n(common.begin(), std::min(common.size(), life.asked.prompt.size() / 2),
                  life.asked.prompt.begin());
    }
    life.host = host_blocks(life.asked.model, static_cast<std::uint32_t>(life.asked.prompt.size()) +
                                                  life.asked.count + model::kBlockTokens);
  }
  const TimePoint deadline = monotonic_now() + 2 * kOrderLimit;
  const auto over = [this] {
    return std::all_of(lives_.begin(), lives_.end(),
                       [](const Life& life) { return life.where == Where::done; });
  };
  while (!over() && !HasFailure()) {
    if (monotonic_now() > deadline) {
      for (const Life& life : lives_) {
        if (life.where == Where::done) continue;
        ADD_FAILURE() << "request " << life.asked.ticket.id << " is stuck in state "
                      << static_cast<int>(life.where) << " at '" << life.at << "' for '" << life.to << "'";
      }
      return;
    }
    while (const auto news = next_news(std::chrono::microseconds(200))) handle(*news);
    for (int i = 0; i < 10; ++i) act(lives_[random_() % lives_.size()]);
    const std::string name = any_machine();
    Machine& machine = machines_[name];
    if (machine.job != 0 && chance(3)) order(name, StopJob{.job = machine.job});
    if (machine.resident.empty() || chance(3)) load_some(name);
    if (machine.job == 0 && !machine.resident.empty()) {
      auto model = machine.resident.begin();
      std::advance(model, random_() % machine.resident.size());
      if (chance(50)) {
        run_decode(name, *model);
      } else {
        run_prefill(name, *model);
      }
    }
  }
  if (HasFailure()) return;
  for (const auto& [where, times] : seen_)
    RecordProperty("where_" + std::to_string(static_cast<int>(where)), static_cast<int>(times));
  // Jobs whose rows have all been released are over soon, too.
  while (std::any_of(machines_.begin(), machines_.end(),
                     [](const auto& each) { return each.second.job != 0 || each.second.loading; }) &&
         monotonic_now() < deadline) {
    if (const auto news = next_news(std::chrono::milliseconds(10))) handle(*news);
  }
  expect_nothing_held();
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomOrders, testing::Range(1, 5));

}  // namespace
}  // namespace switchyard::pool
