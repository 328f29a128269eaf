-- A stock CiviCRM 5.75.1 database with the mailchimpsync extension, as its information schema tells: the tables that
-- matter to us, with stand-ins for those that they point at. Only for tests; loaded with foreign_key_checks off.

CREATE TABLE `civicrm_component` (`id` int(10) unsigned NOT NULL AUTO_INCREMENT, PRIMARY KEY (`id`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE `civicrm_loc_block` (`id` int(10) unsigned NOT NULL AUTO_INCREMENT, PRIMARY KEY (`id`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE `civicrm_saved_search` (`id` int(10) unsigned NOT NULL AUTO_INCREMENT, PRIMARY KEY (`id`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE `civicrm_group_nesting` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `child_group_id` int(10) unsigned NOT NULL,
  `parent_group_id` int(10) unsigned NOT NULL,
  PRIMARY KEY (`id`),
  KEY `FK_civicrm_group_nesting_child_group_id` (`child_group_id`),
  KEY `FK_civicrm_group_nesting_parent_group_id` (`parent_group_id`),
  CONSTRAINT `FK_civicrm_group_nesting_child_group_id` FOREIGN KEY (`child_group_id`) REFERENCES `civicrm_group` (`id`) ON DELETE CASCADE,
  CONSTRAINT `FK_civicrm_group_nesting_parent_group_id` FOREIGN KEY (`parent_group_id`) REFERENCES `civicrm_group` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE `civicrm_group_contact_cache` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `group_id` int(10) unsigned NOT NULL,
  `contact_id` int(10) unsigned NOT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `UI_contact_group` (`contact_id`,`group_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_contact` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `contact_type` varchar(64) NULL DEFAULT NULL,
  `external_identifier` varchar(64) NULL DEFAULT NULL,
  `display_name` varchar(128) NULL DEFAULT NULL,
  `organization_name` varchar(128) NULL DEFAULT NULL,
  `contact_sub_type` varchar(255) NULL DEFAULT NULL,
  `first_name` varchar(64) NULL DEFAULT NULL,
  `middle_name` varchar(64) NULL DEFAULT NULL,
  `last_name` varchar(64) NULL DEFAULT NULL,
  `do_not_email` tinyint(1) NOT NULL DEFAULT 0,
  `do_not_phone` tinyint(1) NOT NULL DEFAULT 0,
  `do_not_mail` tinyint(1) NOT NULL DEFAULT 0,
  `do_not_sms` tinyint(1) NOT NULL DEFAULT 0,
  `do_not_trade` tinyint(1) NOT NULL DEFAULT 0,
  `is_opt_out` tinyint(1) NOT NULL DEFAULT 0,
  `legal_identifier` varchar(32) NULL DEFAULT NULL,
  `sort_name` varchar(128) NULL DEFAULT NULL,
  `nick_name` varchar(128) NULL DEFAULT NULL,
  `legal_name` varchar(128) NULL DEFAULT NULL,
  `image_URL` text NULL DEFAULT NULL,
  `preferred_communication_method` varchar(255) NULL DEFAULT NULL,
  `preferred_language` varchar(5) NULL DEFAULT NULL,
  `hash` varchar(32) NULL DEFAULT NULL,
  `api_key` varchar(32) NULL DEFAULT NULL,
  `source` varchar(255) NULL DEFAULT NULL,
  `prefix_id` int(10) unsigned NULL DEFAULT NULL,
  `suffix_id` int(10) unsigned NULL DEFAULT NULL,
  `formal_title` varchar(64) NULL DEFAULT NULL,
  `communication_style_id` int(10) unsigned NULL DEFAULT NULL,
  `email_greeting_id` int(10) unsigned NULL DEFAULT NULL,
  `email_greeting_custom` varchar(128) NULL DEFAULT NULL,
  `email_greeting_display` varchar(255) NULL DEFAULT NULL,
  `postal_greeting_id` int(10) unsigned NULL DEFAULT NULL,
  `postal_greeting_custom` varchar(128) NULL DEFAULT NULL,
  `postal_greeting_display` varchar(255) NULL DEFAULT NULL,
  `addressee_id` int(10) unsigned NULL DEFAULT NULL,
  `addressee_custom` varchar(128) NULL DEFAULT NULL,
  `addressee_display` varchar(255) NULL DEFAULT NULL,
  `job_title` varchar(255) NULL DEFAULT NULL,
  `gender_id` int(10) unsigned NULL DEFAULT NULL,
  `birth_date` date NULL DEFAULT NULL,
  `is_deceased` tinyint(1) NOT NULL DEFAULT 0,
  `deceased_date` date NULL DEFAULT NULL,
  `household_name` varchar(128) NULL DEFAULT NULL,
  `primary_contact_id` int(10) unsigned NULL DEFAULT NULL,
  `sic_code` varchar(8) NULL DEFAULT NULL,
  `user_unique_id` varchar(255) NULL DEFAULT NULL,
  `employer_id` int(10) unsigned NULL DEFAULT NULL,
  `is_deleted` tinyint(1) NOT NULL DEFAULT 0,
  `created_date` timestamp NULL DEFAULT NULL,
  `modified_date` timestamp NULL DEFAULT current_timestamp() on update current_timestamp(),
  `preferred_mail_format` varchar(8) NULL DEFAULT 'Both',
  KEY `FK_civicrm_contact_employer_id` (`employer_id`),
  KEY `FK_civicrm_contact_primary_contact_id` (`primary_contact_id`),
  KEY `index_api_key` (`api_key`),
  KEY `index_communication_style_id` (`communication_style_id`),
  KEY `index_contact_sub_type` (`contact_sub_type`),
  KEY `index_contact_type` (`contact_type`),
  KEY `index_created_date` (`created_date`),
  KEY `index_first_name` (`first_name`),
  KEY `index_hash` (`hash`),
  KEY `index_household_name` (`household_name`),
  KEY `index_is_deceased` (`is_deceased`),
  KEY `index_is_deleted_sort_name` (`is_deleted`,`sort_name`,`id`),
  KEY `index_last_name` (`last_name`),
  KEY `index_modified_date` (`modified_date`),
  KEY `index_organization_name` (`organization_name`),
  KEY `index_preferred_communication_method` (`preferred_communication_method`),
  KEY `index_sort_name` (`sort_name`),
  PRIMARY KEY (`id`),
  UNIQUE KEY `UI_external_identifier` (`external_identifier`),
  KEY `UI_gender` (`gender_id`),
  KEY `UI_prefix` (`prefix_id`),
  KEY `UI_suffix` (`suffix_id`),
  CONSTRAINT `FK_civicrm_contact_employer_id` FOREIGN KEY (`employer_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE SET NULL,
  CONSTRAINT `FK_civicrm_contact_primary_contact_id` FOREIGN KEY (`primary_contact_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_email` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `contact_id` int(10) unsigned NULL DEFAULT NULL,
  `location_type_id` int(10) unsigned NULL DEFAULT NULL,
  `email` varchar(254) NULL DEFAULT NULL,
  `is_primary` tinyint(1) NOT NULL DEFAULT 0,
  `is_billing` tinyint(1) NOT NULL DEFAULT 0,
  `on_hold` int(10) unsigned NOT NULL DEFAULT 0,
  `is_bulkmail` tinyint(1) NOT NULL DEFAULT 0,
  `hold_date` datetime NULL DEFAULT NULL,
  `reset_date` datetime NULL DEFAULT NULL,
  `signature_text` text NULL DEFAULT NULL,
  `signature_html` text NULL DEFAULT NULL,
  KEY `FK_civicrm_email_contact_id` (`contact_id`),
  KEY `index_is_billing` (`is_billing`),
  KEY `index_is_primary` (`is_primary`),
  KEY `index_location_type` (`location_type_id`),
  PRIMARY KEY (`id`),
  KEY `UI_email` (`email`),
  CONSTRAINT `FK_civicrm_email_contact_id` FOREIGN KEY (`contact_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_group` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(64) NOT NULL,
  `title` varchar(255) NOT NULL,
  `description` text NULL DEFAULT NULL,
  `source` varchar(64) NULL DEFAULT NULL,
  `saved_search_id` int(10) unsigned NULL DEFAULT NULL,
  `is_active` tinyint(1) NOT NULL DEFAULT 1,
  `visibility` varchar(24) NULL DEFAULT 'User and User Admin Only',
  `where_clause` text NULL DEFAULT NULL,
  `select_tables` text NULL DEFAULT NULL,
  `where_tables` text NULL DEFAULT NULL,
  `group_type` varchar(128) NULL DEFAULT NULL,
  `cache_date` timestamp NULL DEFAULT NULL,
  `cache_fill_took` double NULL DEFAULT NULL,
  `refresh_date` timestamp NULL DEFAULT NULL,
  `parents` text NULL DEFAULT NULL,
  `children` text NULL DEFAULT NULL,
  `is_hidden` tinyint(1) NOT NULL DEFAULT 0,
  `is_reserved` tinyint(1) NOT NULL DEFAULT 0,
  `created_id` int(10) unsigned NULL DEFAULT NULL,
  `modified_id` int(10) unsigned NULL DEFAULT NULL,
  `frontend_title` varchar(255) NOT NULL,
  `frontend_description` text NULL DEFAULT NULL,
  KEY `FK_civicrm_group_created_id` (`created_id`),
  KEY `FK_civicrm_group_modified_id` (`modified_id`),
  KEY `FK_civicrm_group_saved_search_id` (`saved_search_id`),
  KEY `index_group_type` (`group_type`),
  PRIMARY KEY (`id`),
  KEY `UI_cache_date` (`cache_date`),
  UNIQUE KEY `UI_name` (`name`),
  UNIQUE KEY `UI_title` (`title`),
  CONSTRAINT `FK_civicrm_group_created_id` FOREIGN KEY (`created_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE SET NULL,
  CONSTRAINT `FK_civicrm_group_modified_id` FOREIGN KEY (`modified_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE SET NULL,
  CONSTRAINT `FK_civicrm_group_saved_search_id` FOREIGN KEY (`saved_search_id`) REFERENCES `civicrm_saved_search` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_group_contact` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `group_id` int(10) unsigned NOT NULL,
  `contact_id` int(10) unsigned NOT NULL,
  `status` varchar(8) NULL DEFAULT NULL,
  `location_id` int(10) unsigned NULL DEFAULT NULL,
  `email_id` int(10) unsigned NULL DEFAULT NULL,
  KEY `FK_civicrm_group_contact_email_id` (`email_id`),
  KEY `FK_civicrm_group_contact_group_id` (`group_id`),
  KEY `FK_civicrm_group_contact_location_id` (`location_id`),
  PRIMARY KEY (`id`),
  UNIQUE KEY `UI_contact_group` (`contact_id`,`group_id`),
  CONSTRAINT `FK_civicrm_group_contact_contact_id` FOREIGN KEY (`contact_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE CASCADE,
  CONSTRAINT `FK_civicrm_group_contact_email_id` FOREIGN KEY (`email_id`) REFERENCES `civicrm_email` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `FK_civicrm_group_contact_group_id` FOREIGN KEY (`group_id`) REFERENCES `civicrm_group` (`id`) ON DELETE CASCADE,
  CONSTRAINT `FK_civicrm_group_contact_location_id` FOREIGN KEY (`location_id`) REFERENCES `civicrm_loc_block` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_subscription_history` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `contact_id` int(10) unsigned NOT NULL,
  `group_id` int(10) unsigned NULL DEFAULT NULL,
  `date` timestamp NOT NULL DEFAULT current_timestamp(),
  `method` varchar(8) NULL DEFAULT NULL,
  `status` varchar(8) NULL DEFAULT NULL,
  `tracking` varchar(255) NULL DEFAULT NULL,
  KEY `FK_civicrm_subscription_history_contact_id` (`contact_id`),
  KEY `FK_civicrm_subscription_history_group_id` (`group_id`),
  PRIMARY KEY (`id`),
  CONSTRAINT `FK_civicrm_subscription_history_contact_id` FOREIGN KEY (`contact_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE CASCADE,
  CONSTRAINT `FK_civicrm_subscription_history_group_id` FOREIGN KEY (`group_id`) REFERENCES `civicrm_group` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_tag` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(64) NOT NULL,
  `label` varchar(64) NOT NULL,
  `description` varchar(255) NULL DEFAULT NULL,
  `parent_id` int(10) unsigned NULL DEFAULT NULL,
  `is_selectable` tinyint(1) NOT NULL DEFAULT 1,
  `is_reserved` tinyint(1) NOT NULL DEFAULT 0,
  `is_tagset` tinyint(1) NOT NULL DEFAULT 0,
  `used_for` varchar(64) NULL DEFAULT NULL,
  `created_id` int(10) unsigned NULL DEFAULT NULL,
  `color` varchar(255) NULL DEFAULT NULL,
  `created_date` datetime NULL DEFAULT current_timestamp(),
  KEY `FK_civicrm_tag_created_id` (`created_id`),
  KEY `FK_civicrm_tag_parent_id` (`parent_id`),
  PRIMARY KEY (`id`),
  UNIQUE KEY `UI_name` (`name`),
  CONSTRAINT `FK_civicrm_tag_created_id` FOREIGN KEY (`created_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE SET NULL,
  CONSTRAINT `FK_civicrm_tag_parent_id` FOREIGN KEY (`parent_id`) REFERENCES `civicrm_tag` (`id`) ON DELETE RESTRICT
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_entity_tag` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `entity_table` varchar(64) NULL DEFAULT NULL,
  `entity_id` int(10) unsigned NOT NULL,
  `tag_id` int(10) unsigned NOT NULL,
  KEY `FK_civicrm_entity_tag_tag_id` (`tag_id`),
  PRIMARY KEY (`id`),
  UNIQUE KEY `UI_entity_id_entity_table_tag_id` (`entity_id`,`entity_table`,`tag_id`),
  CONSTRAINT `FK_civicrm_entity_tag_tag_id` FOREIGN KEY (`tag_id`) REFERENCES `civicrm_tag` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_location_type` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(64) NOT NULL,
  `display_name` varchar(64) NOT NULL,
  `vcard_name` varchar(64) NULL DEFAULT NULL,
  `description` varchar(255) NULL DEFAULT NULL,
  `is_reserved` tinyint(1) NOT NULL DEFAULT 0,
  `is_active` tinyint(1) NOT NULL DEFAULT 1,
  `is_default` tinyint(1) NOT NULL DEFAULT 0,
  PRIMARY KEY (`id`),
  UNIQUE KEY `UI_name` (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_domain` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(64) NULL DEFAULT NULL,
  `description` varchar(255) NULL DEFAULT NULL,
  `version` varchar(32) NULL DEFAULT NULL,
  `contact_id` int(10) unsigned NULL DEFAULT NULL,
  `locales` text NULL DEFAULT NULL,
  `locale_custom_strings` text NULL DEFAULT NULL,
  KEY `FK_civicrm_domain_contact_id` (`contact_id`),
  PRIMARY KEY (`id`),
  UNIQUE KEY `UI_name` (`name`),
  CONSTRAINT `FK_civicrm_domain_contact_id` FOREIGN KEY (`contact_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE RESTRICT
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_setting` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(255) NULL DEFAULT NULL,
  `value` text NULL DEFAULT NULL,
  `domain_id` int(10) unsigned NULL DEFAULT NULL,
  `contact_id` int(10) unsigned NULL DEFAULT NULL,
  `is_domain` tinyint(1) NOT NULL DEFAULT 0,
  `component_id` int(10) unsigned NULL DEFAULT NULL,
  `created_date` datetime NULL DEFAULT NULL,
  `created_id` int(10) unsigned NULL DEFAULT NULL,
  KEY `FK_civicrm_setting_component_id` (`component_id`),
  KEY `FK_civicrm_setting_contact_id` (`contact_id`),
  KEY `FK_civicrm_setting_created_id` (`created_id`),
  UNIQUE KEY `index_domain_contact_name` (`domain_id`,`contact_id`,`name`),
  PRIMARY KEY (`id`),
  CONSTRAINT `FK_civicrm_setting_component_id` FOREIGN KEY (`component_id`) REFERENCES `civicrm_component` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `FK_civicrm_setting_contact_id` FOREIGN KEY (`contact_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE CASCADE,
  CONSTRAINT `FK_civicrm_setting_created_id` FOREIGN KEY (`created_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE SET NULL,
  CONSTRAINT `FK_civicrm_setting_domain_id` FOREIGN KEY (`domain_id`) REFERENCES `civicrm_domain` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_job` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `domain_id` int(10) unsigned NOT NULL,
  `run_frequency` varchar(8) NULL DEFAULT 'Daily',
  `last_run` timestamp NULL DEFAULT NULL,
  `last_run_end` timestamp NULL DEFAULT NULL,
  `scheduled_run_date` timestamp NULL DEFAULT NULL,
  `name` varchar(255) NULL DEFAULT NULL,
  `description` varchar(255) NULL DEFAULT NULL,
  `api_entity` varchar(255) NULL DEFAULT NULL,
  `api_action` varchar(255) NULL DEFAULT NULL,
  `parameters` text NULL DEFAULT NULL,
  `is_active` tinyint(1) NOT NULL DEFAULT 1,
  KEY `FK_civicrm_job_domain_id` (`domain_id`),
  PRIMARY KEY (`id`),
  CONSTRAINT `FK_civicrm_job_domain_id` FOREIGN KEY (`domain_id`) REFERENCES `civicrm_domain` (`id`) ON DELETE RESTRICT
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_job_log` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `domain_id` int(10) unsigned NOT NULL,
  `run_time` timestamp NULL DEFAULT NULL,
  `job_id` int(10) unsigned NULL DEFAULT NULL,
  `name` varchar(255) NULL DEFAULT NULL,
  `command` varchar(255) NULL DEFAULT NULL,
  `description` varchar(255) NULL DEFAULT NULL,
  `data` longtext NULL DEFAULT NULL,
  KEY `FK_civicrm_job_log_domain_id` (`domain_id`),
  KEY `FK_civicrm_job_log_job_id` (`job_id`),
  PRIMARY KEY (`id`),
  CONSTRAINT `FK_civicrm_job_log_domain_id` FOREIGN KEY (`domain_id`) REFERENCES `civicrm_domain` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `FK_civicrm_job_log_job_id` FOREIGN KEY (`job_id`) REFERENCES `civicrm_job` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_uf_match` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `domain_id` int(10) unsigned NOT NULL,
  `uf_id` int(10) unsigned NOT NULL DEFAULT 0,
  `uf_name` varchar(255) NULL DEFAULT NULL,
  `contact_id` int(10) unsigned NULL DEFAULT NULL,
  `username` varchar(60) NOT NULL,
  `hashed_password` varchar(128) NOT NULL DEFAULT '',
  `when_created` timestamp NULL DEFAULT current_timestamp(),
  `when_last_accessed` timestamp NULL DEFAULT NULL,
  `when_updated` timestamp NULL DEFAULT NULL,
  `is_active` tinyint(1) NOT NULL DEFAULT 1,
  `timezone` varchar(32) NULL DEFAULT NULL,
  `language` varchar(5) NULL DEFAULT NULL,
  `password_reset_token` varchar(255) NULL DEFAULT NULL,
  KEY `FK_civicrm_uf_match_domain_id` (`domain_id`),
  KEY `I_civicrm_uf_match_uf_id` (`uf_id`),
  PRIMARY KEY (`id`),
  UNIQUE KEY `UI_contact_domain_id` (`contact_id`,`domain_id`),
  UNIQUE KEY `UI_uf_name_domain_id` (`uf_name`,`domain_id`),
  UNIQUE KEY `UI_username` (`username`),
  CONSTRAINT `FK_civicrm_uf_match_contact_id` FOREIGN KEY (`contact_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE SET NULL,
  CONSTRAINT `FK_civicrm_uf_match_domain_id` FOREIGN KEY (`domain_id`) REFERENCES `civicrm_domain` (`id`) ON DELETE RESTRICT
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_option_group` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `name` varchar(64) NOT NULL,
  `title` varchar(255) NULL DEFAULT NULL,
  `description` text NULL DEFAULT NULL,
  `data_type` varchar(128) NULL DEFAULT NULL,
  `is_reserved` tinyint(1) NOT NULL DEFAULT 1,
  `is_active` tinyint(1) NOT NULL DEFAULT 1,
  `is_locked` tinyint(1) NOT NULL DEFAULT 0,
  `option_value_fields` varchar(128) NULL DEFAULT 'name,label,description',
  PRIMARY KEY (`id`),
  UNIQUE KEY `UI_name` (`name`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_option_value` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `option_group_id` int(10) unsigned NOT NULL,
  `label` varchar(512) NOT NULL,
  `value` varchar(512) NOT NULL,
  `name` varchar(255) NULL DEFAULT NULL,
  `grouping` varchar(255) NULL DEFAULT NULL,
  `filter` int(10) unsigned NULL DEFAULT 0,
  `is_default` tinyint(1) NULL DEFAULT 0,
  `weight` int(10) unsigned NOT NULL,
  `description` text NULL DEFAULT NULL,
  `is_optgroup` tinyint(1) NULL DEFAULT 0,
  `is_reserved` tinyint(1) NULL DEFAULT 0,
  `is_active` tinyint(1) NULL DEFAULT 1,
  `component_id` int(10) unsigned NULL DEFAULT NULL,
  `domain_id` int(10) unsigned NULL DEFAULT NULL,
  `visibility_id` int(10) unsigned NULL DEFAULT NULL,
  `icon` varchar(255) NULL DEFAULT NULL,
  `color` varchar(255) NULL DEFAULT NULL,
  KEY `FK_civicrm_option_value_component_id` (`component_id`),
  KEY `FK_civicrm_option_value_domain_id` (`domain_id`),
  KEY `FK_civicrm_option_value_option_group_id` (`option_group_id`),
  KEY `index_option_group_id_name` (`name`,`option_group_id`),
  KEY `index_option_group_id_value` (`value`,`option_group_id`),
  PRIMARY KEY (`id`),
  CONSTRAINT `FK_civicrm_option_value_component_id` FOREIGN KEY (`component_id`) REFERENCES `civicrm_component` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `FK_civicrm_option_value_domain_id` FOREIGN KEY (`domain_id`) REFERENCES `civicrm_domain` (`id`) ON DELETE RESTRICT,
  CONSTRAINT `FK_civicrm_option_value_option_group_id` FOREIGN KEY (`option_group_id`) REFERENCES `civicrm_option_group` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_mailchimpsync_batch` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `mailchimp_list_id` varchar(32) NULL DEFAULT NULL,
  `mailchimp_batch_id` varchar(32) NULL DEFAULT NULL,
  `status` varchar(32) NULL DEFAULT NULL,
  `submitted_at` datetime NULL DEFAULT NULL,
  `completed_at` datetime NULL DEFAULT NULL,
  `finished_operations` int(11) NULL DEFAULT 0,
  `errored_operations` int(11) NULL DEFAULT 0,
  `total_operations` int(11) NULL DEFAULT 0,
  `response_processed` int(11) NULL DEFAULT 0,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_mailchimpsync_cache` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `mailchimp_list_id` varchar(32) NOT NULL,
  `mailchimp_member_id` char(32) NULL DEFAULT NULL,
  `mailchimp_email` varchar(255) NULL DEFAULT NULL,
  `mailchimp_status` varchar(20) NULL DEFAULT NULL,
  `mailchimp_updated` datetime NULL DEFAULT NULL,
  `mailchimp_data` blob NULL DEFAULT NULL,
  `civicrm_data` blob NULL DEFAULT NULL,
  `civicrm_groups` text NULL DEFAULT NULL,
  `civicrm_contact_id` int(10) unsigned NULL DEFAULT NULL,
  `sync_status` varchar(10) NULL DEFAULT 'todo',
  KEY `FK_civicrm_mailchimpsync_cache_civicrm_contact_id` (`civicrm_contact_id`),
  KEY `index_list_id_sync_status` (`mailchimp_list_id`,`sync_status`),
  PRIMARY KEY (`id`),
  CONSTRAINT `FK_civicrm_mailchimpsync_cache_civicrm_contact_id` FOREIGN KEY (`civicrm_contact_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_mailchimpsync_update` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `mailchimpsync_cache_id` int(10) unsigned NULL DEFAULT NULL,
  `mailchimpsync_batch_id` int(10) unsigned NULL DEFAULT NULL,
  `data` text NOT NULL,
  `completed` tinyint(4) NOT NULL DEFAULT 0,
  `error_response` text NULL DEFAULT NULL,
  KEY `FK_civicrm_mailchimpsync_update_mailchimpsync_batch_id` (`mailchimpsync_batch_id`),
  KEY `FK_civicrm_mailchimpsync_update_mailchimpsync_cache_id` (`mailchimpsync_cache_id`),
  PRIMARY KEY (`id`),
  CONSTRAINT `FK_civicrm_mailchimpsync_update_mailchimpsync_batch_id` FOREIGN KEY (`mailchimpsync_batch_id`) REFERENCES `civicrm_mailchimpsync_batch` (`id`) ON DELETE CASCADE,
  CONSTRAINT `FK_civicrm_mailchimpsync_update_mailchimpsync_cache_id` FOREIGN KEY (`mailchimpsync_cache_id`) REFERENCES `civicrm_mailchimpsync_cache` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE `civicrm_mailchimpsync_status` (
  `list_id` varchar(32) NOT NULL,
  `data` mediumblob NOT NULL,
  PRIMARY KEY (`list_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

DELIMITER //
CREATE TRIGGER civicrm_contact_before_insert BEFORE INSERT ON civicrm_contact FOR EACH ROW
  SET NEW.created_date = CURRENT_TIMESTAMP//
CREATE TRIGGER civicrm_email_after_insert AFTER INSERT ON civicrm_email FOR EACH ROW
  UPDATE civicrm_contact SET modified_date = CURRENT_TIMESTAMP WHERE id = NEW.contact_id//
CREATE TRIGGER civicrm_email_after_update AFTER UPDATE ON civicrm_email FOR EACH ROW
  UPDATE civicrm_contact SET modified_date = CURRENT_TIMESTAMP WHERE id = NEW.contact_id//
CREATE TRIGGER civicrm_email_after_delete AFTER DELETE ON civicrm_email FOR EACH ROW
  UPDATE civicrm_contact SET modified_date = CURRENT_TIMESTAMP WHERE id = OLD.contact_id//
DELIMITER ;

-- Tables of addresses, notes, relationships and custom fields, with the columns that we declare.
CREATE TABLE `civicrm_country` (
  id INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT,
  name VARCHAR(64),
  iso_code VARCHAR(2),
  is_active TINYINT(1) NOT NULL DEFAULT 1,
  PRIMARY KEY (id),
  CONSTRAINT `UI_name_iso_code` UNIQUE (name, iso_code)
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `civicrm_relationship_type` (
  id INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT,
  name_a_b VARCHAR(64),
  label_a_b VARCHAR(64),
  name_b_a VARCHAR(64),
  label_b_a VARCHAR(64),
  description VARCHAR(255),
  contact_type_a VARCHAR(12),
  contact_type_b VARCHAR(12),
  contact_sub_type_a VARCHAR(64),
  contact_sub_type_b VARCHAR(64),
  is_reserved TINYINT(1) NOT NULL DEFAULT 0,
  is_active TINYINT(1) NOT NULL DEFAULT 1,
  PRIMARY KEY (id),
  UNIQUE (name_a_b),
  UNIQUE (name_b_a)
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `civicrm_custom_group` (
  id INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT,
  name VARCHAR(64),
  title VARCHAR(64) NOT NULL,
  extends VARCHAR(255) DEFAULT 'Contact',
  extends_entity_column_id INTEGER(10) UNSIGNED,
  extends_entity_column_value VARCHAR(255),
  style VARCHAR(15),
  collapse_display TINYINT(1) NOT NULL DEFAULT 0,
  help_pre TEXT,
  help_post TEXT,
  weight INTEGER NOT NULL DEFAULT 1,
  is_active TINYINT(1) NOT NULL DEFAULT 1,
  table_name VARCHAR(255),
  is_multiple TINYINT(1) NOT NULL DEFAULT 0,
  min_multiple INTEGER(10) UNSIGNED,
  max_multiple INTEGER(10) UNSIGNED,
  collapse_adv_display TINYINT(1) NOT NULL DEFAULT 0,
  created_id INTEGER(10) UNSIGNED,
  created_date DATETIME,
  is_reserved TINYINT(1) NOT NULL DEFAULT 0,
  is_public TINYINT(1) NOT NULL DEFAULT 1,
  icon VARCHAR(255),
  PRIMARY KEY (id),
  CONSTRAINT `UI_title_extends` UNIQUE (title, extends),
  UNIQUE (name),
  FOREIGN KEY(created_id) REFERENCES civicrm_contact (id) ON DELETE SET NULL
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `civicrm_note` (
  id INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT,
  entity_table VARCHAR(64) NOT NULL,
  entity_id INTEGER(10) UNSIGNED NOT NULL,
  note TEXT,
  contact_id INTEGER(10) UNSIGNED,
  note_date TIMESTAMP NULL,
  created_date TIMESTAMP NULL,
  modified_date TIMESTAMP NULL,
  subject VARCHAR(255),
  privacy VARCHAR(255) NOT NULL DEFAULT '0',
  PRIMARY KEY (id),
  FOREIGN KEY(contact_id) REFERENCES civicrm_contact (id) ON DELETE SET NULL,
  KEY `index_entity` (`entity_table`, `entity_id`)
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `civicrm_phone` (
  id INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT,
  contact_id INTEGER(10) UNSIGNED,
  location_type_id INTEGER(10) UNSIGNED,
  is_primary TINYINT(1) NOT NULL DEFAULT 0,
  is_billing TINYINT(1) NOT NULL DEFAULT 0,
  mobile_provider_id INTEGER(10) UNSIGNED,
  phone VARCHAR(32),
  phone_ext VARCHAR(16),
  phone_numeric VARCHAR(32),
  phone_type_id INTEGER(10) UNSIGNED,
  PRIMARY KEY (id),
  FOREIGN KEY(contact_id) REFERENCES civicrm_contact (id) ON DELETE CASCADE,
  KEY `phone_numeric_index` (`phone_numeric`),
  KEY `FK_civicrm_phone_contact_id` (`contact_id`)
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `civicrm_relationship` (
  id INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT,
  contact_id_a INTEGER(10) UNSIGNED NOT NULL,
  contact_id_b INTEGER(10) UNSIGNED NOT NULL,
  relationship_type_id INTEGER(10) UNSIGNED NOT NULL,
  start_date DATE,
  end_date DATE,
  is_active TINYINT(1) NOT NULL DEFAULT 1,
  description VARCHAR(255),
  is_permission_a_b INTEGER(10) UNSIGNED NOT NULL DEFAULT 0,
  is_permission_b_a INTEGER(10) UNSIGNED NOT NULL DEFAULT 0,
  case_id INTEGER(10) UNSIGNED,
  PRIMARY KEY (id),
  FOREIGN KEY(contact_id_a) REFERENCES civicrm_contact (id) ON DELETE CASCADE,
  FOREIGN KEY(contact_id_b) REFERENCES civicrm_contact (id) ON DELETE CASCADE,
  FOREIGN KEY(relationship_type_id) REFERENCES civicrm_relationship_type (id) ON DELETE CASCADE,
  KEY `FK_civicrm_relationship_contact_id_b` (`contact_id_b`),
  KEY `FK_civicrm_relationship_contact_id_a` (`contact_id_a`)
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `civicrm_state_province` (
  id INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT,
  name VARCHAR(64),
  abbreviation VARCHAR(4),
  country_id INTEGER(10) UNSIGNED NOT NULL,
  is_active TINYINT(1) NOT NULL DEFAULT 1,
  PRIMARY KEY (id),
  CONSTRAINT `UI_name_country_id` UNIQUE (name, country_id),
  FOREIGN KEY(country_id) REFERENCES civicrm_country (id)
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `civicrm_address` (
  id INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT,
  contact_id INTEGER(10) UNSIGNED,
  location_type_id INTEGER(10) UNSIGNED,
  is_primary TINYINT(1) NOT NULL DEFAULT 0,
  is_billing TINYINT(1) NOT NULL DEFAULT 0,
  street_address VARCHAR(96),
  street_number INTEGER,
  street_number_suffix VARCHAR(8),
  street_number_predirectional VARCHAR(8),
  street_name VARCHAR(64),
  street_type VARCHAR(8),
  street_number_postdirectional VARCHAR(8),
  street_unit VARCHAR(16),
  supplemental_address_1 VARCHAR(96),
  supplemental_address_2 VARCHAR(96),
  supplemental_address_3 VARCHAR(96),
  city VARCHAR(64),
  county_id INTEGER(10) UNSIGNED,
  state_province_id INTEGER(10) UNSIGNED,
  postal_code_suffix VARCHAR(12),
  postal_code VARCHAR(64),
  usps_adc VARCHAR(32),
  country_id INTEGER(10) UNSIGNED,
  geo_code_1 DOUBLE,
  geo_code_2 DOUBLE,
  manual_geo_code TINYINT(1) NOT NULL DEFAULT 0,
  timezone VARCHAR(8),
  name VARCHAR(255),
  master_id INTEGER(10) UNSIGNED,
  PRIMARY KEY (id),
  FOREIGN KEY(contact_id) REFERENCES civicrm_contact (id) ON DELETE CASCADE,
  FOREIGN KEY(state_province_id) REFERENCES civicrm_state_province (id) ON DELETE SET NULL,
  FOREIGN KEY(country_id) REFERENCES civicrm_country (id) ON DELETE SET NULL,
  FOREIGN KEY(master_id) REFERENCES civicrm_address (id) ON DELETE SET NULL,
  KEY `index_city` (`city`),
  KEY `FK_civicrm_address_contact_id` (`contact_id`)
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `civicrm_custom_field` (
  id INTEGER(10) UNSIGNED NOT NULL AUTO_INCREMENT,
  custom_group_id INTEGER(10) UNSIGNED NOT NULL,
  name VARCHAR(64),
  label VARCHAR(255) NOT NULL,
  data_type VARCHAR(16) NOT NULL,
  html_type VARCHAR(32) NOT NULL,
  default_value VARCHAR(255),
  is_required TINYINT(1) NOT NULL DEFAULT 0,
  is_searchable TINYINT(1) NOT NULL DEFAULT 0,
  is_search_range TINYINT(1) NOT NULL DEFAULT 0,
  weight INTEGER NOT NULL DEFAULT 1,
  help_pre TEXT,
  help_post TEXT,
  attributes VARCHAR(255),
  is_active TINYINT(1) DEFAULT 1,
  is_view TINYINT(1) NOT NULL DEFAULT 0,
  options_per_line INTEGER(10) UNSIGNED,
  text_length INTEGER(10) UNSIGNED,
  start_date_years INTEGER,
  end_date_years INTEGER,
  date_format VARCHAR(64),
  time_format INTEGER(10) UNSIGNED,
  note_columns INTEGER(10) UNSIGNED,
  note_rows INTEGER(10) UNSIGNED,
  column_name VARCHAR(255),
  option_group_id INTEGER(10) UNSIGNED,
  serialize INTEGER(10) UNSIGNED NOT NULL DEFAULT 0,
  filter VARCHAR(255),
  in_selector TINYINT(1) NOT NULL DEFAULT 0,
  PRIMARY KEY (id),
  CONSTRAINT `UI_label_custom_group_id` UNIQUE (label, custom_group_id),
  CONSTRAINT `UI_name_custom_group_id` UNIQUE (name, custom_group_id),
  FOREIGN KEY(custom_group_id) REFERENCES civicrm_custom_group (id) ON DELETE CASCADE,
  FOREIGN KEY(option_group_id) REFERENCES civicrm_option_group (id) ON DELETE SET NULL
)ENGINE=InnoDB CHARSET=utf8mb4 COLLATE utf8mb4_unicode_ci;
CREATE TABLE `civicrm_activity` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `source_record_id` int(10) unsigned NULL DEFAULT NULL,
  `activity_type_id` int(10) unsigned NOT NULL DEFAULT 1,
  `subject` varchar(255) NULL DEFAULT NULL,
  `activity_date_time` datetime NULL DEFAULT current_timestamp(),
  `duration` int(10) unsigned NULL DEFAULT NULL,
  `location` varchar(255) NULL DEFAULT NULL,
  `phone_id` int(10) unsigned NULL DEFAULT NULL,
  `phone_number` varchar(64) NULL DEFAULT NULL,
  `details` longtext NULL DEFAULT NULL,
  `status_id` int(10) unsigned NULL DEFAULT NULL,
  `priority_id` int(10) unsigned NULL DEFAULT NULL,
  `parent_id` int(10) unsigned NULL DEFAULT NULL,
  `is_test` tinyint(4) NOT NULL DEFAULT 0,
  `medium_id` int(10) unsigned NULL DEFAULT NULL,
  `is_auto` tinyint(4) NOT NULL DEFAULT 0,
  `relationship_id` int(10) unsigned NULL DEFAULT NULL,
  `is_current_revision` tinyint(4) NOT NULL DEFAULT 1,
  `original_id` int(10) unsigned NULL DEFAULT NULL,
  `result` varchar(255) NULL DEFAULT NULL,
  `is_deleted` tinyint(4) NOT NULL DEFAULT 0,
  `campaign_id` int(10) unsigned NULL DEFAULT NULL,
  `engagement_level` int(10) unsigned NULL DEFAULT NULL,
  `weight` int(11) NULL DEFAULT NULL,
  `is_star` tinyint(4) NOT NULL DEFAULT 0,
  `created_date` timestamp NULL DEFAULT current_timestamp(),
  `modified_date` timestamp NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(),
  PRIMARY KEY (`id`),
  KEY `index_activity_type_id` (`activity_type_id`),
  KEY `index_activity_date_time` (`activity_date_time`),
  CONSTRAINT `FK_civicrm_activity_parent_id` FOREIGN KEY (`parent_id`) REFERENCES `civicrm_activity` (`id`) ON DELETE SET NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
CREATE TABLE `civicrm_activity_contact` (
  `id` int(10) unsigned NOT NULL AUTO_INCREMENT,
  `activity_id` int(10) unsigned NOT NULL,
  `contact_id` int(10) unsigned NOT NULL,
  `record_type_id` int(10) unsigned NULL DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `UI_activity_contact` (`contact_id`,`activity_id`,`record_type_id`),
  KEY `index_record_type` (`activity_id`,`record_type_id`),
  CONSTRAINT `FK_civicrm_activity_contact_activity_id` FOREIGN KEY (`activity_id`) REFERENCES `civicrm_activity` (`id`) ON DELETE CASCADE,
  CONSTRAINT `FK_civicrm_activity_contact_contact_id` FOREIGN KEY (`contact_id`) REFERENCES `civicrm_contact` (`id`) ON DELETE CASCADE
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;
