import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Books the days of each channel from the ledger, leadgen.kpi-windows.v1: once final, and every revision.
 *
 * <p>LEADPULSE_KAFKA=localhost:9092 java -cp 'lib/*' KpiConsumer.java [window] [basis]
 */
public class KpiConsumer {
  private static final ObjectMapper JSON = new ObjectMapper();

  /** The last revision that was booked of each key; a real service keeps it with its bookings. */
  private static final Map<String, Integer> BOOKED = new HashMap<>();

  public static void main(String[] arguments) throws Exception {
    String window = arguments.length > 0 ? arguments[0] : "1d";
    String basis = arguments.length > 1 ? arguments[1] : "period";
    String prefix = System.getenv().getOrDefault("LEADPULSE_TOPICS_PREFIX", "leadgen.");
    try (var consumer = new KafkaConsumer<String, String>(settings(prefix))) {
      consumer.subscribe(List.of(prefix + "kpi-windows.v1"));
      while (true) {
        for (var record : consumer.poll(Duration.ofSeconds(1))) {
          // basis|window|start|channel|campaign; _all stands for all.
          String[] key = record.key().split("\\|");
          boolean isChannel = !key[3].equals("_all") && key[4].equals("_all");
          if (key[0].equals(basis) && key[1].equals(window) && isChannel) {
            book(record);
          }
        }
        // Only now: what a crash interrupts comes again, and `book` knows what it has already.
        consumer.commitSync();
      }
    }
  }

  private static Properties settings(String prefix) {
    var settings = new Properties();
    String servers = System.getenv().getOrDefault("LEADPULSE_KAFKA", "localhost:9092");
    settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
    settings.put(ConsumerConfig.GROUP_ID_CONFIG, prefix + "ledger-example");
    settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
    settings.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
    settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    settings.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
    settings.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
    return settings;
  }

  private static void book(ConsumerRecord<String, String> record) throws Exception {
    JsonNode told = JSON.readTree(record.value());
    int revision = told.get("revision").asInt();
    if (revision <= BOOKED.getOrDefault(record.key(), 0)) {
      return; // revisions of a key only go up
    }
    BOOKED.put(record.key(), revision);
    JsonNode cpl = told.get("kpis").get("cpl");
    // An undefined KPI is null, with the reason.
    JsonNode value = cpl.get("value").isNull() ? cpl.get("undefined_reason") : cpl.get("value");
    String why = told.get("cause").isNull() ? "" : " because of " + told.get("cause").asText();
    System.out.printf(
        "%s %s: %s leads, cost %s, CPL %s (%s, revision %d%s)%n",
        told.get("window").get("start").asText(),
        told.get("scope").get("channel").asText(),
        told.get("facts").path("leads").asText("0"), // facts of 0 are left out
        told.get("facts").path("cost").asText("0"),
        value.asText(),
        told.get("state").asText(),
        revision,
        why);
  }
}
